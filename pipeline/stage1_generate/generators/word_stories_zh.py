"""Chinese stories of `word_problems`; the form is that of `word_stories_en`.

A thing brings its measure word: "{a}{unit}{noun}" gives "3本书".
"""

from __future__ import annotations

NAMES = (
    "小明", "小红", "小华", "小丽", "小军", "小芳", "小强", "小美", "小刚", "小云", "小林", "小雪",
    "小东", "小兰", "小杰", "小雨",
)  # fmt: skip

THINGS = tuple(
    {"unit": unit, "noun": noun}
    for unit, noun in (
        ("个", "苹果"), ("本", "书"), ("支", "铅笔"), ("张", "卡片"), ("颗", "糖"), ("块", "饼干"),
        ("个", "气球"), ("枚", "邮票"), ("朵", "花"), ("个", "橘子"), ("颗", "弹珠"),
        ("张", "贴纸"), ("个", "桃子"), ("枚", "硬币"), ("颗", "纽扣"), ("个", "贝壳"),
    )
)  # fmt: skip

TRAIN = (
    ("zh_gift", "{name}有{a}{unit}{noun}，{friend}又给了{name}{b}{unit}。"
     "{name}现在一共有多少{unit}{noun}？", "a+b"),
    ("zh_give_away", "{name}有{a}{unit}{noun}，送给{friend}{b}{unit}。"
     "{name}还剩多少{unit}{noun}？", "a-b"),
    ("zh_boxes", "有{a}个盒子，每个盒子里有{b}{unit}{noun}。一共有多少{unit}{noun}？", "a*b"),
    ("zh_share", "{name}把{a}{unit}{noun}平均分给{b}个朋友。每个朋友分到多少{unit}？", "a/b"),
    ("zh_more_than", "{name}有{a}{unit}{noun}，{friend}比{name}多{b}{unit}。"
     "{friend}有多少{unit}{noun}？", "a+b"),
    ("zh_difference", "{name}捡到{a}{unit}{noun}，{friend}捡到{b}{unit}。"
     "{name}比{friend}多捡到多少{unit}？", "a-b"),
    ("zh_tickets", "一张票{a}元，{name}买了{b}张。{name}要付多少元？", "a*b"),
    ("zh_buy_and_give", "{name}有{a}{unit}{noun}，又买了{b}{unit}，然后送给{friend}{c}{unit}。"
     "{name}现在有多少{unit}{noun}？", "x=a+b; x-c"),
    ("zh_bags", "{name}买了{a}袋{noun}，每袋{b}{unit}，后来用掉了{c}{unit}。还剩多少{unit}？",
     "x=a*b; x-c"),
    ("zh_both", "{name}有{a}{unit}{noun}，{friend}比{name}多{b}{unit}。"
     "两人一共有多少{unit}{noun}？", "x=a+b; a+x"),
    ("zh_bill", "{name}买了{a}支钢笔，每支{b}元，又买了一个{c}元的书包。一共花了多少元？",
     "x=a*b; x+c"),
    ("zh_bus", "公共汽车上有{a}人，到站后下去{b}人，又上来{c}人。现在车上有多少人？",
     "x=a-b; x+c"),
    ("zh_two_colours", "{name}有{a}{unit}红色的{noun}和{b}{unit}蓝色的{noun}，平均放进{c}个袋子。"
     "每个袋子里有多少{unit}？", "x=a+b; x/c"),
    ("zh_library", "图书角有{a}个书架，每个书架有{b}本书。借出{c}本，还回{d}本。"
     "现在有多少本书？", "x=a*b; y=x-c; y+d"),
    ("zh_fruit", "{name}买了{a}斤苹果，每斤{b}元，又买了{c}斤梨，每斤{d}元。一共要付多少元？",
     "x=a*b; y=c*d; x+y"),
    ("zh_boxes_bags", "{name}有{a}盒{noun}，每盒{b}{unit}，还有{c}袋{noun}，每袋{d}{unit}。"
     "送给{friend}{e}{unit}以后，还剩多少{unit}？", "x=a*b; y=c*d; z=x+y; z-e"),
)  # fmt: skip

EVAL = (
    ("zh_birds", "树上有{a}只小鸟，又飞来了{b}只。现在树上有多少只小鸟？", "a+b"),
    ("zh_plate", "盘子里有{a}块蛋糕，{name}吃了{b}块。盘子里还有多少块蛋糕？", "a-b"),
    ("zh_rows", "教室里有{a}排座位，每排{b}个。教室里一共有多少个座位？", "a*b"),
    ("zh_rope", "一根绳子长{a}米，剪成一样长的{b}段。每段长多少米？", "a/b"),
    ("zh_hens", "农场有{a}只母鸡，每只下了{b}个蛋，卖掉{c}个蛋以后，还剩多少个蛋？",
     "x=a*b; x-c"),
    ("zh_walk", "{name}每天早上走{a}千米，晚上走{b}千米。{c}天一共走多少千米？", "x=a+b; x*c"),
    ("zh_tree", "一棵树上有{a}个桃子，掉下来{b}个，剩下的由{c}个孩子平分。每个孩子分到多少个？",
     "x=a-b; x/c"),
    ("zh_rolls", "面包师做了{a}盘面包，每盘{b}个，烤坏了{c}个，其余的每{d}个装一袋。"
     "一共装了多少袋？", "x=a*b; y=x-c; y/d"),
    ("zh_trip", "有{a}个孩子和{b}个大人去旅行，{c}人没有来，其余的人每{d}人坐一辆车，每辆车{e}元。"
     "一共要付多少元车费？", "x=a+b; y=x-c; z=y/d; z*e"),
)  # fmt: skip

"""Words and labels of `symbol_mapping`.

Train and eval share no category, no word and no label. No word stands in two categories (an
orange is a fruit here and no colour). Labels are pronounceable and mean nothing in English.
"""

from __future__ import annotations

from collections.abc import Mapping

_EN_TRAIN = {
    "animals": "dog cat horse cow sheep goat lion tiger bear wolf fox rabbit mouse elephant "
    "monkey camel deer zebra giraffe donkey kangaroo squirrel panda leopard",
    "fruits": "apple banana grape pear peach cherry lemon mango orange plum melon strawberry "
    "pineapple apricot coconut kiwi raspberry blueberry papaya fig lime grapefruit blackberry "
    "watermelon",
    "tools": "hammer saw drill wrench screwdriver pliers axe shovel rake chisel ladder crowbar "
    "spade sickle anvil clamp sander trowel hoe hacksaw mallet pickaxe tweezers spanner",
    "clothes": "shirt trousers jacket coat dress skirt sock shoe hat scarf glove sweater belt "
    "boot jeans blouse vest tie pyjamas shorts sandal cap mitten cardigan",
    "body parts": "hand foot arm leg nose ear eye mouth knee elbow shoulder finger toe chin "
    "neck ankle wrist thumb tongue hip stomach forehead eyebrow cheek",
    "instruments": "piano guitar violin flute drum trumpet cello harp clarinet saxophone banjo "
    "trombone accordion tambourine ukulele xylophone oboe bassoon mandolin harmonica tuba "
    "bagpipes viola organ",
    "jobs": "doctor teacher farmer nurse lawyer baker plumber carpenter pilot waiter dentist "
    "engineer butcher tailor judge soldier painter barber sailor journalist librarian mechanic "
    "electrician gardener",
    "furniture": "table chair sofa bed desk wardrobe shelf stool cupboard bench bookcase drawer "
    "armchair couch dresser cradle nightstand cabinet hammock recliner ottoman bunk sideboard "
    "footstool",
    "weather": "rain snow wind storm fog hail thunder lightning sunshine cloud frost drizzle "
    "hurricane tornado mist blizzard breeze drought sleet rainbow humidity monsoon heatwave "
    "downpour",
    "countries": "France Germany Italy Spain Japan China India Brazil Canada Egypt Kenya Peru "
    "Greece Norway Poland Sweden Vietnam Portugal Morocco Chile Cuba Nigeria Thailand Finland",
}

_EN_EVAL = {
    "birds": "eagle sparrow owl pigeon parrot swan crow robin penguin seagull falcon peacock "
    "flamingo ostrich woodpecker canary heron pelican vulture hawk stork raven swallow cuckoo",
    "vegetables": "carrot potato onion cabbage spinach broccoli lettuce cucumber pea bean "
    "garlic celery pumpkin radish turnip leek beetroot cauliflower asparagus zucchini eggplant "
    "kale parsnip artichoke",
    "vehicles": "car bus train bicycle truck boat ship airplane motorcycle tram helicopter van "
    "taxi scooter submarine ferry tractor canoe yacht wagon ambulance raft sled lorry",
    "colours": "red blue green yellow purple black white brown pink grey violet turquoise "
    "crimson beige maroon indigo scarlet lavender magenta cyan khaki azure teal ivory",
    "sports": "football tennis basketball hockey golf swimming boxing rugby cricket baseball "
    "volleyball skiing badminton wrestling fencing archery rowing surfing judo karate cycling "
    "gymnastics skating handball",
    "feelings": "joy anger fear sadness love pride shame envy hope guilt grief boredom surprise "
    "disgust jealousy happiness anxiety excitement loneliness gratitude sorrow relief "
    "embarrassment delight",
    "metals": "iron gold silver copper tin lead zinc aluminium nickel steel platinum titanium "
    "mercury bronze brass cobalt tungsten chromium magnesium uranium lithium sodium calcium "
    "potassium",
}

_ZH_TRAIN = {
    "动物": "狗 猫 马 牛 羊 老虎 狮子 大象 猴子 兔子 "
    "熊猫 狐狸 骆驼 长颈鹿 斑马 松鼠 老鼠 豹子 袋鼠 刺猬",
    "水果": "苹果 香蕉 葡萄 梨 桃子 樱桃 柠檬 芒果 橙子 西瓜 "
    "草莓 菠萝 荔枝 柿子 石榴 椰子 李子 杏 枣 龙眼",
    "工具": "锤子 锯子 钳子 斧头 铲子 螺丝刀 扳手 梯子 电钻 镰刀 "
    "锄头 凿子 剪刀 卷尺 钉子 刨子 锉刀 撬棍 镊子 水平尺",
    "职业": "医生 教师 农民 护士 律师 厨师 司机 警察 记者 工人 "
    "画家 歌手 演员 会计 裁缝 木匠 飞行员 消防员 理发师 程序员",
    "家具": "桌子 椅子 沙发 床 书柜 衣柜 茶几 凳子 书桌 鞋柜 "
    "梳妆台 床头柜 餐桌 书架 屏风 躺椅 摇椅 橱柜 长凳 抽屉",
    "衣服": "衬衫 裤子 外套 裙子 袜子 鞋 帽子 围巾 手套 毛衣 "
    "大衣 皮带 领带 背心 睡衣 短裤 旗袍 雨衣 羽绒服 马甲",
}

_ZH_EVAL = {
    "蔬菜": "白菜 萝卜 土豆 黄瓜 茄子 菠菜 芹菜 洋葱 南瓜 豆角 "
    "青椒 冬瓜 韭菜 莲藕 蘑菇 生菜 西兰花 大蒜 丝瓜 油菜",
    "交通工具": "汽车 火车 飞机 自行车 轮船 地铁 公交车 摩托车 卡车 出租车 "
    "直升机 电车 帆船 潜艇 马车 拖拉机 渡船 救护车 雪橇 货车",
    "乐器": "钢琴 吉他 小提琴 笛子 鼓 二胡 古筝 琵琶 小号 口琴 "
    "大提琴 萨克斯 手风琴 唢呐 竖琴 长号 单簧管 木琴 箫 锣",
    "天气": "下雨 下雪 刮风 打雷 闪电 大雾 冰雹 晴天 阴天 多云 "
    "台风 霜冻 沙尘暴 彩虹 暴雨 干旱 龙卷风 雾霾 小雨 寒潮",
}


def _split(table: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(words.split()) for name, words in table.items()}


CATEGORIES = {
    "en": {"train": _split(_EN_TRAIN), "eval": _split(_EN_EVAL)},
    "zh": {"train": _split(_ZH_TRAIN), "eval": _split(_ZH_EVAL)},
}

LABELS = _split(
    {
        "train": "zop blick dax wug fep gorp kib lonk mib norf pelk quab rask sarn tove vimp yorl "
        "zeb brin crell drun flome gusk hink jorp klem lurn mosk nerp plard rilt smoob trell vash",
        "eval": "bax clorn dib frell gomp heffa jib kolp lerp mendo nask oont prag quin reeb spolk "
        "tazz ulf vorn wep yat zim blorp crend fusk glim harn jelk kren morb nusk pliv",
    }
)

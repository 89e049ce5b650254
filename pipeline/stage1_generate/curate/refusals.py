"""`refusal`: the answer declines to answer, in English or Chinese.

A sentence is looked at where refusals stand: among the first of an answer and, in its plainest
forms, the last. What a character of a story says in quotation marks is no refusal, nor is the
letter of regret that was asked for.
"""

from __future__ import annotations

import re

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep

FIRST = 3  # sentences; courtesies come before a refusal ("Thank you for asking. However, ...")
LAST = 2
SHORTEST_STORY = 120  # characters; less that regrets is no story
LONGEST = 400  # characters of a sentence that are looked at

_CANNOT = (
    r"(?:can(?:['’]?t|not|\snot)|won['’]?t|will\snot"
    r"|(?:['’]m|\sam|\sare|['’]re)\s(?:unable|not\s(?:able|allowed|permitted|programmed))\sto)"
)
_VERBS = (
    r"(?:help|assist|comply|fulfill?|provide|answer|respond|create|generate|write|produce|share"
    r"|discuss|engage|offer|support|complete|give|participate|browse|access"
    r"|disclose|reveal|do\s(?:that|this))"
)
_AI = (
    r"(?:ai|artificial\sintelligence|(?:ai\s|large\s)?language\smodel)\b"
    r"(?:\s(?:model|assistant|system|chatbot|program)\b)?"
)
# Nobody but somebody who declines to answer says these.
_PLAIN = re.compile(
    rf"""\b(?:i|we)\b[^,;.!?]{{0,24}}?{_CANNOT}\s(?:\w+\s){{0,3}}(?:
            (?:help|assist|support|engage|continue)\s(?:you\s)?(?:with|in)\s
                (?:that|this|your|such|any)\b
          | (?:comply|fulfill?|complete|accommodate|process)\s(?:with\s)?
                (?:your|that|this|the|such)\s(?:\w+\s)?request
          | (?:discuss|answer|respond\sto)\s(?:that|this|such|your)\s(?:question|request|topic)
        )
      | \bas\san?\s(?:\w+\s)?{_AI},?\s(?:i|my|we)\b
      | \bi(?:['’]m|\sam)\s(?:just\s|only\s|merely\s)?an?\s(?:\w+\s)?{_AI}(?!\s\w*(?:er|ist)\b)
      | \b(?:against|violat\w+|outside)\s(?:of\s)?(?:my|our|the)\s(?:\w+\s){{0,2}}
            (?:guidelines|polic(?:y|ies)|programming)\b
      | \bmy\s(?:\w+\s){{0,2}}(?:guidelines|programming|policies)\s
            (?:do\snot|don['’]t|prevent|prohibit|forbid)
      | \bi(?:['’]m|\sam)?\s(?:do\snot|don['’]t|not)\s(?:feel\s)?comfortable\s\w+ing\b
      | \bnot\s(?:be\s)?appropriate\sfor\sme\b
      | \b(?:that|this|it)(?:\sis|['’]s)\s(?:something|beyond\swhat)
            \s(?:i|we)\scan(?:['’]t|not)?\sdo\b
      | 作为(?:一个|一名|一款)?(?:AI|人工智能|大?语言模型|大模型|智能助手)[^。！？的]{{0,10}}我
      | 我(?:只|仅仅)?是一?[个款名]?(?:AI|人工智能|大?语言模型|大模型)
            (?!领域|研究|工程|专业|专家|公司|学)
      | (?:内容|结果|信息|话题)(?:暂时)?不予(?:显示|展示|讨论)
      | (?:违反|不符合|违背)了?[^，。！？]{{0,16}}(?:政策|规定|准则|原则|规范|法律)[^。！？]{{0,20}}
            (?:无法|不能|不便|拒绝)
      | (?:无法|不能|不便|没办法|难以)(?:[为向给就对](?:您|你|此))?[^，。！？]{{0,8}}
            (?:您|你|这个|该|此|这类|这样|这项)的?(?:请求|要求|问题|需求|任务)
      | (?:这个|该|您的|你的|此|这类)(?:问题|请求|要求|话题)[^。！？]{{0,12}}(?:无法|不能|不便|难以)
      | 恕(?:我)?(?:难从命|无法|不能)
      | 超出了?我的(?:能力|知识)范围
    """,
    re.IGNORECASE | re.VERBOSE,
)
# A refusal when an answer begins with it; a person says it too.
_LIKELY = re.compile(
    rf"""\b(?:i|we)\b[^,;.!?]{{0,16}}?{_CANNOT}\s(?!help\s(?:but|\w+ing)\b)(?:\w+\s){{0,2}}?{_VERBS}\b
      | \bi\s(?:must|have\sto|need\sto|will\shave\sto)\s(?:respectfully\s|politely\s)?
            (?:decline|refuse|refrain\sfrom)\b
      | \bi\s(?:do\snot|don['’]t)\shave\s(?:the\s(?:ability|capability)\sto|access\sto
            |personal\s(?:opinions|feelings|experiences|beliefs))\b
      | \bi(?:['’]d|\swould)?\s(?:prefer|rather)\snot\s(?:to\s)?
            (?:continue|discuss|answer|engage|talk|write|comment|say)\b
      | \bi(?:['’]m|\sam)\s(?:going\sto|afraid\si)\s(?:have\sto|must)\s(?:decline|refuse|pass)\b
      | (?:抱歉|对不起|遗憾|不好意思)[^。！？\n]{{0,20}}(?:无法|不能|不可以|不便|没有?办法|还没)
      | 我(?:目前|暂时|现在|恐怕|也)?(?:无法|不能|不便|没有?办法)(?:直接|继续)?
            (?:参与|回答|提供|帮助|协助|满足|完成|生成|讨论|透露|为您|为你|给您|给你|帮您|帮你|向您|访问|浏览)
      | 不太?方便(?:继续)?(?:讨论|回答|透露|谈|说)|还?(?:没有?|不)学?会(?:如何)?(?:回答|讲)
      | 我们(?:还是)?[聊谈换]\w{{0,2}}(?:别的|话题)
      | 我(?:必须|只能|不得不)?(?:拒绝|谢绝)(?:回答|提供|这|您|你|此)
    """,
    re.IGNORECASE | re.VERBOSE,
)
# In what such words may ask for, a person of the text may regret and decline.
_ASKS_FOR_SPEECH = re.compile(
    r"\b(?:letter|e-?mail|message|reply|speech|quote|tweet|write a sentence|translat\w+|rewrit\w+"
    r"|paraphras\w+|rephras\w+|apolog\w+|declin\w+|refus\w+)\b"
    r"|信|邮件|短信|回复|留言|台词|造句|翻译|改写|道歉|拒绝|婉拒",
    re.IGNORECASE,
)
_ASKS_FOR_A_STORY = re.compile(
    r"\b(?:story|stories|tale|fable|poem|song|lyrics|novel|dialog(?:ue)?|conversation|script|scene"
    r"|monologue|diary)\b|故事|寓言|诗|歌|小说|对话|剧本|独白|日记",
    re.IGNORECASE,
)
# One of these is in every refusal that the patterns know; most answers have none.
_SIGNS = (
    *("can't", "can’t", "cant ", "cannot", "can not", "won't", "won’t", "wont ", "will not"),
    *("unable", "not able", "not allowed", "not permitted", "not programmed", "an ai"),
    *(
        "language model",
        "artificial intelligence",
        "as a ",
        "against",
        "violat",
        "outside",
        "guidelines",
        "programming",
        "policies",
    ),
    *("decline", "refuse", " pass", "comfortable", "refrain"),
    *("appropriate", "something i can", "beyond what", "ability to", "capability", "access to"),
    *(
        "personal ",
        "prefer not",
        "rather not",
        "can't do",
        "我是",
        "我只是",
        "不予",
        "方便",
        "别的",
    ),
    *("学会", "不会", "话题"),
    *("无法", "不能", "不可以", "不便", "办法", "作为", "难以", "拒绝", "谢绝", "难从命", "超出"),
)
_SENTENCE = re.compile(r"[^.!?。！？\n]*[.!?。！？\n]*")
_QUOTED = re.compile(
    r"\"[^\"\n]{0,600}\"|“[^”]{0,600}”|「[^」]{0,600}」|‘[^’]{0,600}’(?!\w)|^>.*$", re.MULTILINE
)


def refusal() -> Filter:
    """Drop answers that decline to answer, outright or after a courtesy."""

    def check(row: Candidate) -> Verdict:
        lower = row.generation.text.lower()
        if not any(sign in lower for sign in _SIGNS):
            return keep("refusal")
        text = _QUOTED.sub(" ", row.generation.text.replace("*", ""))
        sentences = [s for s in (m[0].strip() for m in _SENTENCE.finditer(text[:2000])) if s]
        question = str(row.seed.fields.get("question", ""))
        speech = _ASKS_FOR_SPEECH.search(question) or (
            len(text) > SHORTEST_STORY and _ASKS_FOR_A_STORY.search(question)
        )
        for sentence in sentences[:FIRST]:
            found = _PLAIN.search(sentence[:LONGEST])
            if not found and not speech:
                found = _LIKELY.search(sentence[:LONGEST])
            if found:
                return drop("refusal", _shown(found))
        tail = [s for s in (m[0].strip() for m in _SENTENCE.finditer(text[-800:])) if s]
        for sentence in tail[-LAST:] if not speech else []:
            if found := _PLAIN.search(sentence[:LONGEST]):
                return drop("refusal", _shown(found))
        return keep("refusal")

    return check


def _shown(found: re.Match[str]) -> str:
    # The funnel counts by what stands before the colon.
    return f"declines: “{' '.join(found[0].split())[:60]}”"

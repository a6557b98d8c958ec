"""Texts of many kinds, written for this: what a count of tokens has to hold for."""

import base64
import csv
import inspect
import io
import json
import random
import textwrap

PROSE = """
The harbour master kept two clocks on the wall of his office, and they had not agreed for eleven
years. One had come with the building. The other had belonged to his father, who had wound it every
Sunday evening and had taught his son to do the same, so that by now the winding was less a duty
than a way of remembering. Ships came in by the first clock, because the authority in the capital
required it; tea was made by the second. When a young inspector arrived one autumn and asked which
of them was right, the harbour master looked at both for some time before he answered. "That one,"
he said, pointing to the first, "is correct. This one is right." The inspector wrote something in
his notebook and did not ask again.

It is easy to laugh at such a man, and people in the town did, although never in front of him. But
the tides, which do not read clocks of any kind, had made him careful about what he called true. He
had seen a schooner lost in clear weather because its captain trusted a chart that had been drawn
before the great storm moved the sandbank; he had seen fishermen, who could not have found their own
village on that same chart, come home through fog by the smell of the kelp. Knowledge, he used to
say, is what is still there after the instruments have been put away. Nobody quite understood what
he meant by it, and he never explained. In winter, when there was little to do, he repaired nets
with the others, told stories about countries that he had not visited, and listened politely while
the schoolteacher corrected him.
"""

GERMAN = """
Am frühen Morgen, noch bevor die ersten Straßenbahnen fuhren, öffnete die Bäckerin ihre Ladentür und
stellte die Körbe mit den frischen Brötchen ins Schaufenster. Über Nacht hatte es geregnet; das
Kopfsteinpflaster glänzte, und aus den Dachrinnen tropfte es gleichmäßig auf die Fensterbänke. Wer
um diese Zeit unterwegs war, kannte sie und grüßte: der Briefträger, zwei Krankenschwestern auf dem
Heimweg, gelegentlich ein Musiker mit seinem Geigenkasten. Man sprach über das Wetter, über die
Bürgermeisterwahl und über die längst versprochene Wiedereröffnung der Eisenbahnbrücke, an die
eigentlich niemand mehr glaubte. „Nächstes Jahr bestimmt“, sagte die Bäckerin jedes Mal.
"""

FRENCH = """
Le vieux jardinier s'arrêtait toujours devant le même rosier, celui qui n'avait jamais fleuri. On lui
disait de l'arracher, d'en planter un autre ; il hochait la tête, promettait d'y réfléchir et, dès le
lendemain, recommençait à l'arroser. « Il n'est pas mort, répétait-il, il hésite. » Pendant l'été, les
enfants du quartier venaient après l'école pour écouter ses histoires, où il était question de
châteaux, d'âmes égarées et de voyages qu'il n'avait sans doute jamais faits. À la fin d'août, un
matin très clair, une fleur blanche s'ouvrit enfin ; personne n'osa la cueillir.
"""

CHINESE = """
村子后面有一条小河，河水不深，夏天的时候孩子们常常在那里捉鱼。老人们说，从前这条河比现在宽得多，春天
涨水的时候，连牛都过不去。后来上游修了水库，河道一年比一年窄，只有桥还是原来的桥，长长的，显得有些多
余。桥头住着一位姓周的木匠，他做的桌椅结实耐用，十里八乡的人都愿意来找他。周师傅话不多，干活的时候总
是低着头，刨花一卷一卷地落在地上，散发出淡淡的松香。有人问他，为什么不到城里去开一家铺子，挣更多的钱。
他想了想，说：“城里的木头没有味道。”大家都笑了，觉得他是在开玩笑，可是他自己并没有笑。

那一年冬天特别冷，河面结了厚厚的冰，孩子们在冰上滑来滑去，笑声传得很远。周师傅病了，躺在床上整整一个
月，村里的人轮流给他送饭。春天来的时候，他终于能下地走路了，第一件事就是去看那座桥。桥栏杆上不知道被谁
刻了一行字：“桥还在，人也在。”他用手摸了摸那几个字，站了很久，然后慢慢地走回家，重新拿起了刨子。人工
智能、数据库、操作系统这些词，他一个也不懂；但是他知道，一件东西要用得久，就得做得慢。
"""

TRADITIONAL_CHINESE = """
圖書館的閱覽室裡總是很安靜，只有翻書的聲音和窗外的鳥鳴。管理員戴著一副老花眼鏡，把歸還的書一本一本放
回架上。他記得每一位讀者的習慣：有人專挑歷史小說，有人只看地圖，還有一位老先生每天下午三點準時來讀報紙，
讀完之後總要把報紙摺得整整齊齊。下雨的時候，閱覽室裡的燈光顯得格外溫暖。
"""

JAPANESE = """
駅前の古い時計店は、商店街でいちばん早くシャッターを開ける。店主の佐藤さんは七十五歳になるが、細かい部品
を扱う手つきは少しも衰えていない。「時計というのはね、正直なものですよ」と、彼はルーペをのぞきながら言
う。「手を抜いた仕事は、必ず一年以内に戻ってきます。」最近は電池を交換するだけの客が多くなったけれど、と
きどき祖父の形見だという懐中時計を持って来る若い人がいる。そういう日は、佐藤さんはいつもより遅くまで店に
明かりをつけて、コーヒーを何杯も飲みながら、歯車のひとつひとつをていねいに磨いている。
"""

KOREAN = """
할머니의 부엌에는 언제나 된장 냄새가 났다. 새벽마다 마당에서 장독 뚜껑을 여는 소리가 들렸고, 나는 그 소리에
잠이 깨곤 했다. 할머니는 비가 올 것 같은 날이면 허리가 먼저 안다고 하셨는데, 신기하게도 그 예보는 거의 틀린
적이 없었다. 학교에서 돌아오면 마루에 앉아 감자를 먹으면서 하루 동안 있었던 일을 이야기했다. 할머니는 고개를
끄덕이며 들으셨고, 가끔은 당신이 어렸을 때 이야기를 들려주셨다. 지금도 된장국을 끓일 때면 그 부엌이 생각난다.
"""

ARABIC = """
كان في المدينة القديمة خطاط يجلس كل صباح أمام دكانه الصغير، يبري أقلام القصب ويخلط الحبر بنفسه. لم يكن
يستعجل في عمله أبدا، وكان يقول لتلاميذه إن الحرف إذا كتب على عجل بكى. وفي أحد الأيام جاءه تاجر غني وطلب منه
أن يكتب اسمه على باب قصره الجديد، ووعده بمال كثير إذا أتم العمل قبل غروب الشمس. ابتسم الخطاط وقدم له كأسا من
الشاي، ثم قال: «أستطيع أن أكتب اسمك قبل الغروب، ولكن الناس سيقرؤونه بعد موتك بسنوات طويلة، فلمن تريد أن
أكتب؟» سكت التاجر قليلا، وشرب الشاي، ثم عاد بعد شهر ليأخذ اللوحة.

وكان أطفال الحي يجتمعون حوله بعد صلاة العصر، فيعطي كل واحد منهم قصاصة من الورق وقلما قديما، ويعلمهم كيف
يمسكون القلم وكيف يتنفسون قبل أن يرسموا الألف. بعضهم صار مهندسا وبعضهم صار طبيبا، وواحد منهم فقط ورث
الدكان، وما زال حتى اليوم يخلط الحبر بنفسه ويقول للزبائن الجملة نفسها.
"""

HEBREW = """
בקצה הרחוב הצר עמד בית קפה קטן, ובו שישה שולחנות בלבד. בעל הבית הכיר את כל האורחים בשמם וזכר בדיוק מה כל אחד
מהם שותה. בימי שישי בבוקר ישבו שם סטודנטים, פנסיונרים ונהגי אוטובוס, והתווכחו על כדורגל ועל פוליטיקה עד שהגיע
הזמן לסגור. אף פעם לא היה שם שקט, ובכל זאת באו לשם כדי לנוח.
"""

RUSSIAN = """
На окраине города, там, где кончались рельсы, стоял деревянный дом с зелёными ставнями. В нём жила учительница
музыки, которая давно уже никого не учила, но каждый вечер открывала крышку рояля и играла одну и ту же пьесу.
Соседи привыкли и говорили: «Пора ужинать». Однажды зимой музыка не прозвучала, и вся улица вышла на крыльцо,
не понимая, что случилось. Оказалось, что просто лопнула струна; мастера искали три дня, и всё это время никто
не мог вспомнить, который час.
"""

GREEK = """
Στο νησί υπήρχε ένας φάρος που δεν άναβε πια, αλλά ο φύλακας συνέχιζε να ανεβαίνει τα σκαλιά κάθε βράδυ. Έλεγε
ότι η θάλασσα θυμάται περισσότερα από τους ανθρώπους και ότι θα ήταν αγένεια να μην την καληνυχτίσει κανείς.
"""

HINDI = """
गाँव के बाहर बरगद का एक बहुत पुराना पेड़ था, जिसकी छाया में गर्मियों की दोपहर में सारे बच्चे इकट्ठे होते थे।
बूढ़े लोग वहीं बैठकर पंचायत करते, यात्री वहीं रुककर पानी पीते, और शाम को कोई न कोई कहानी सुनाने वाला मिल ही
जाता था। कहते हैं कि जिसने उस पेड़ के नीचे झूठ बोला, उसे रात भर नींद नहीं आई। इसलिए गाँव के झगड़े वहाँ जल्दी
सुलझ जाते थे।
"""

THAI = """
ตลาดน้ำเปิดตั้งแต่เช้ามืด แม่ค้าพายเรือมาจอดเรียงกันตามริมคลอง ขายผลไม้ ขนม และก๋วยเตี๋ยวร้อน ๆ คนที่นี่รู้จักกันหมด
ใครไม่มาขายวันไหนก็จะมีคนถามหา ยายคนหนึ่งขายขนมครกมาห้าสิบปีแล้ว และยังจำได้ว่าลูกค้าแต่ละคนชอบหวานมากหรือหวานน้อย
"""

EMOJI = "".join(
    f"{word} {emoji} "
    for word, emoji in zip(
        "party rain cat train family flag music pizza robot heart wave night".split() * 12,
        (
            *("🎉", "🌧️", "🐈‍⬛", "🚆", "👨‍👩‍👧‍👦", "🇩🇪", "🎶", "🍕", "🤖", "❤️‍🔥", "👋🏽", "🌃"),
            *("😀😃😄😁", "🦊🐻🐼", "🥑🍔🍟🌭", "✈️🚀🛸", "⚽🏀🏈", "💼📎📌", "🧑🏾‍🚀", "🏳️‍🌈", "🫠🫡", "🪐☄️", "♟️", "🔟"),
        )
        * 6,
        strict=True,
    )
)

PYTHON = inspect.getsource(textwrap) + inspect.getsource(csv)

JSON = json.dumps(
    [
        {"id": 1000 + n, "name": f"Item {n}", "price": n * 1.25, "tags": ["new", "sale"], "ok": True}
        for n in range(40)
    ],
    indent=2,
)

CPP = """
template <typename Key, typename Value>
std::optional<Value> LruCache<Key, Value>::get(const Key& key) {
    std::lock_guard<std::mutex> guard(mutex_);
    auto it = index_.find(key);
    if (it == index_.end()) { ++misses_; return std::nullopt; }
    entries_.splice(entries_.begin(), entries_, it->second);
    return it->second->second;
}

static inline uint32_t rotl32(uint32_t x, int8_t r) { return (x << r) | (x >> (32 - r)); }
#define MAX_RETRIES 5
for (size_t i = 0; i < n_threads && !stop_requested.load(std::memory_order_acquire); ++i) {
    workers.emplace_back([this, i] { run_worker(static_cast<int>(i), 0xDEADBEEF); });
}
""" * 2

HTML = """
<section class="card card--wide" id="results" data-page="3">
  <h2 class="card__title">Results</h2>
  <ul>
    <li><a href="https://example.org/a?id=42&amp;lang=en#top" rel="noopener">First result</a></li>
    <li><img src="/static/img/icon-24x24.png" alt="" width="24" height="24"></li>
  </ul>
</section>
""" * 3

_random = random.Random(0)

BASE64 = base64.b64encode(_random.randbytes(1800)).decode()

HEX = "\n".join(_random.randbytes(32).hex() for _ in range(30))


def _table() -> str:
    out = io.StringIO()
    rows = csv.writer(out)
    for n in range(60):
        rows.writerow([f"2026-03-{n % 28 + 1:02}", n, _random.randint(0, 10**6), _random.random()])
    return out.getvalue()


NUMBERS = _table()

MINIFIED = (
    'function a(b,c){var d=b.length,e=[];for(var f=0;f<d;f++){if(c&&!c(b[f]))continue;e.push(b[f]);}'
    'return e}!function(){"use strict";var t={x:1,y:[2,3],z:null};window.__q=t||{};}();'
) * 6

LOG = "\n".join(
    f"2026-11-{n % 28 + 1:02}T12:{n % 60:02}:07.{n:03}Z INFO  [worker-{n % 4}] "
    f"GET /api/v2/users/{n * 7919 % 10007}?expand=roles 200 {n * 13 % 997}ms id={n * 2654435761 % 2**32:08x}"
    for n in range(40)
)

CORPUS = {
    "prose": PROSE,
    "German": GERMAN,
    "French": FRENCH,
    "Chinese": CHINESE,
    "traditional Chinese": TRADITIONAL_CHINESE,
    "Japanese": JAPANESE,
    "Korean": KOREAN,
    "Arabic": ARABIC,
    "Hebrew": HEBREW,
    "Russian": RUSSIAN,
    "Greek": GREEK,
    "Hindi": HINDI,
    "Thai": THAI,
    "emoji": EMOJI,
    "Python": PYTHON,
    "C++": CPP,
    "JSON": JSON,
    "HTML": HTML,
    "minified JavaScript": MINIFIED,
    "base64": BASE64,
    "hex": HEX,
    "numbers": NUMBERS,
    "log": LOG,
}

const facts = JSON.parse($("facts").textContent);
const THUMBNAIL = 1, VIEW = 2, SCENE = 4;

const items = JSON.parse($("items").textContent).map((row, index) => ({
  index, name: row[0], key: row[1], flags: row[2],
  picture: row[3] === 1 ? `images/${row[0]}` : row[3] || null,
  amounts: row[4], best: row[5], sequence: row[6], reason: row[7], measure: row[8],
  lower: row[0].toLowerCase(),
}));
/** Label maps have shares of pixels instead of numbers of objects. */
const shares = items.some((item) => item.amounts.some((of) => of.length === 2));
const scored = items.some((item) => item.best !== null);
/** What the slider of scores is about: scores of objects or, where there are none, how good each item is. */
const measured = !scored && facts.measure !== null;
const skippedCount = items.reduce((sum, item) => sum + (item.reason >= 0), 0);

const classIndex = new Map(facts.classes.map((name, number) => [name, number]));

const filters = { text: "", classes: new Set(), score: 0, least: 0, most: Infinity, status: "all", sequence: -1 };
const ordering = { by: facts.measure === null ? "given" : "measure", reversed: false };

/** Objects of an item that count with these filters, or thousandths of its pixels. */
function amount(item) {
  const bin = Math.round(filters.score * 20);
  let sum = 0;
  for (const of of item.amounts) {
    if (filters.classes.size && !filters.classes.has(of[0])) continue;
    if (of.length === 2) { sum += of[1]; continue; }
    for (let at = 2; at < of.length; at += 2) if (of[at] >= bin) sum += of[at + 1];
  }
  return sum;
}

function passes(item) {
  if (filters.text && !item.lower.includes(filters.text)) return false;
  if (filters.sequence >= 0 && item.sequence !== filters.sequence) return false;
  const isSkipped = item.reason >= 0;
  if (filters.status === "done" && isSkipped) return false;
  if (filters.status === "skipped" && !isSkipped) return false;
  if (/^\d+$/.test(filters.status) && item.reason !== Number(filters.status)) return false;
  if (measured && filters.score && !(item.measure !== null && item.measure >= filters.score)) return false;
  const bounded = filters.least > 0 || filters.most < Infinity;
  const byScore = scored && filters.score > 0;
  if (!filters.classes.size && !byScore && !bounded) return true;
  if (isSkipped) return false;
  const count = shares ? amount(item) / 10 : amount(item);
  if ((filters.classes.size || byScore) && !bounded && count <= 0) return false;
  return count >= filters.least && count <= filters.most;
}

/** Nulls come last, whichever way round. */
const byNumber = (value) => (one, other) => {
  const a = value(one), b = value(other);
  if (a === null || b === null) return (a === null) - (b === null) || one.index - other.index;
  return (ordering.reversed ? b - a : a - b) || one.index - other.index;
};
const ORDERS = {
  given: { word: "order of the run", compare: byNumber((item) => item.index) },
  name: {
    word: "name",
    compare: (one, other) => {
      const order = one.lower < other.lower ? -1 : one.lower > other.lower ? 1 : one.index - other.index;
      return ordering.reversed ? -order : order;
    },
  },
};
if (items.some((item) => item.amounts.length)) {
  const word = shares ? "share of the classes" : "objects, most first";
  ORDERS.amount = { word, compare: byNumber((item) => (item.reason >= 0 ? null : -amount(item))) };
}
if (scored) ORDERS.score = { word: "best score, low first", compare: byNumber((item) => item.best) };
if (facts.measure !== null) ORDERS.measure = { word: "worst first", compare: byNumber((item) => item.measure) };

/** What is shown, in its order. */
const selected = () => items.filter(passes).sort(ORDERS[ordering.by].compare);

/** What was found, in words. */
function words(item) {
  if (item.reason >= 0) return "skipped";
  const least = Math.round(filters.score * 20);
  const parts = item.amounts
    .map((of) => {
      if (of.length === 2) return [of[1], `${facts.classes[of[0]]} ${(of[1] / 10).toFixed(of[1] < 100 ? 1 : 0)} %`];
      let count = 0;
      for (let at = 2; at < of.length; at += 2) if (of[at] >= least) count += of[at + 1];
      return [count, `${count} ${facts.classes[of[0]]}`];
    })
    .filter((part) => part[0] > 0)
    .sort((one, other) => other[0] - one[0])
    .map((part) => part[1]);
  if (item.measure !== null) parts.unshift(item.measure.toFixed(3));
  return parts.length ? parts.join(", ") : "nothing";
}

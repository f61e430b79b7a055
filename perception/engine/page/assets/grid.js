const CELL = { width: 216, least: 200, height: 206 };
let shown = [];
let current = 0; // place in what is shown
let columns = 1;
const cells = new Map(); // place -> cell
const spare = [];

/** Filters and sorts anew, keeps the current item where it still is, and draws. */
function refresh() {
  const kept = shown[current];
  shown = selected();
  current = Math.max(0, kept ? shown.indexOf(kept) : 0);
  for (const place of [...cells.keys()]) free(place);
  const total = items.length;
  $("count").textContent = shown.length === total ? `${total} ${total === 1 ? facts.unit : facts.units}` : `${shown.length} of ${total} ${facts.units}`;
  $("nothing").hidden = shown.length > 0;
  $("nothing").textContent = total ? `No ${facts.units} pass these filters.` : `There are no ${facts.units} yet.`;
  arrange();
  if (kept && shown[current] === kept) reveal(); else $("grid").scrollTop = 0;
  drawGrid();
}

function arrange() {
  const width = $("grid").clientWidth - 20;
  columns = Math.max(1, Math.floor(width / CELL.least));
  CELL.width = Math.floor(width / columns);
  $("cells").style.height = `${Math.ceil(shown.length / columns) * CELL.height}px`;
}

/** Makes the cells that can be seen, and one row before and after; all others are used again. */
function drawGrid() {
  const grid = $("grid");
  const first = Math.max(0, (Math.floor((grid.scrollTop - 10) / CELL.height) - 1) * columns);
  const last = Math.min(shown.length, (Math.ceil((grid.scrollTop + grid.clientHeight) / CELL.height) + 1) * columns);
  for (const place of [...cells.keys()]) if (place < first || place >= last) free(place);
  for (let place = first; place < last; place += 1) if (!cells.has(place)) fill(place);
}

function free(place) {
  const cell = cells.get(place);
  cells.delete(place);
  cell.element.hidden = true;
  spare.push(cell);
}

function newCell() {
  const image = make("img", { alt: "", decoding: "async", draggable: false });
  const thumb = make("div", { className: "thumb" });
  const name = make("bdi");
  const found = make("div", { className: "found" });
  const element = make("div", { className: "cell" }, thumb, make("div", { className: "name" }, name), found);
  element.style.height = `${CELL.height - 6}px`;
  const cell = { element, thumb, image, name, found, place: 0 };
  element.addEventListener("click", () => { goTo(cell.place); openView(cell.place); });
  $("cells").append(element);
  return cell;
}

function fill(place) {
  const item = shown[place], cell = spare.pop() ?? newCell();
  cells.set(place, cell);
  cell.place = place;
  const row = Math.floor(place / columns), column = place % columns;
  cell.element.style.transform = `translate(${column * CELL.width}px, ${row * CELL.height}px)`;
  cell.element.style.width = `${CELL.width - 8}px`;
  cell.element.classList.toggle("current", place === current);
  cell.element.hidden = false;
  cell.element.title = shownName(item.name);
  cell.element.dataset.index = item.index;
  cell.name.textContent = shownName(item.name);
  cell.found.textContent = words(item);
  cell.thumb.classList.toggle("skipped", item.reason >= 0);
  cell.image.removeAttribute("src");
  if (item.flags & THUMBNAIL) {
    cell.image.src = `page/${item.key}.jpg`;
    cell.thumb.replaceChildren(cell.image);
  } else {
    cell.thumb.replaceChildren(item.reason >= 0 ? facts.reasons[item.reason] : "no picture");
  }
}

function goTo(place) {
  cells.get(current)?.element.classList.remove("current");
  current = clamp(place, 0, Math.max(0, shown.length - 1));
  cells.get(current)?.element.classList.add("current");
}

/** Scrolls as little as is needed for the current item to be seen. */
function reveal() {
  const grid = $("grid"), top = Math.floor(current / columns) * CELL.height;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + CELL.height + 20 > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + CELL.height + 20 - grid.clientHeight;
}

let drawing = 0;
$("grid").addEventListener("scroll", () => {
  drawing ||= requestAnimationFrame(() => { drawing = 0; drawGrid(); });
}, { passive: true });
new ResizeObserver(() => {
  const before = CELL.width;
  arrange();
  if (before !== CELL.width) { for (const place of [...cells.keys()]) free(place); reveal(); }
  drawGrid();
}).observe($("grid"));

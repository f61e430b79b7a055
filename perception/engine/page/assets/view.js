let panes = [];
let asked = 0;
const chunks = new Map(); // number of a file of records -> promise of them
const arrived = { records: new Map(), scenes: new Map() };
/** What files of records and scenes call when they are loaded. */
window.page = {
  take: (number, records) => arrived.records.set(number, records),
  scene: (key, scene) => arrived.scenes.set(key, scene),
};

/** An item's record, from the file that holds it; the last four files are kept. */
async function recordOf(item) {
  if (item.reason >= 0) return null;
  let low = 0, high = facts.chunks.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (facts.chunks[middle] <= item.index) low = middle; else high = middle - 1;
  }
  if (!chunks.has(low)) {
    const taken = load(`page/records/${String(low).padStart(5, "0")}.js`).then(() => {
      const records = arrived.records.get(low);
      arrived.records.delete(low);
      return records;
    });
    taken.catch(() => chunks.delete(low));
    chunks.set(low, taken);
    if (chunks.size > 4) chunks.delete(chunks.keys().next().value);
  }
  return (await chunks.get(low))[item.index - facts.chunks[low]];
}

async function sceneOf(item) {
  if (!(item.flags & SCENE)) return null;
  await load(`page/${item.key}.js`);
  const scene = arrived.scenes.get(item.key);
  arrived.scenes.delete(item.key);
  return scene;
}

async function openView(place) {
  if (!shown.length) return;
  goTo(place);
  const item = shown[current], call = ++asked;
  if (!$("view").open) $("view").showModal();
  $("view-title").textContent = shownName(item.name);
  $("view-place").textContent = `${current + 1} of ${shown.length}`;
  const address = "#" + urlOf(item.name);
  if (location.hash !== address) location.replace(address);
  let record = null, scene = null, made, failure = "";
  try {
    [record, scene] = await Promise.all([recordOf(item), sceneOf(item)]);
  } catch (error) {
    failure = `${error.message}: a file of this page was not copied with it.`;
  }
  if (call !== asked) return;
  if (failure || !record) made = [wordsPane(failure || facts.reasons[item.reason])];
  else if (scene?.boxes) made = await spacePanes(item, record, scene);
  else if (item.flags & VIEW || scene || !item.picture && record.width) made = await flatPanes(item, record, scene);
  else made = [item.picture ? await picturePane(item) : wordsPane("no picture")];
  if (call !== asked) return;
  panes = made;
  $("panes").replaceChildren(...panes.map((pane) => pane.element));
  fillSide(item, record);
  drawPanes();
  $("view").dataset.shown = item.index;
}

const wordsPane = (text) => ({ element: make("div", { className: "pane" }, make("p", { className: "words", textContent: text })) });

/** The picture that was drawn, to be zoomed and moved. */
async function picturePane(item) {
  const image = await picture(urlOf(item.picture));
  if (!image) return wordsPane(`${item.picture} is missing: a file of this page was not copied with it.`);
  return new FlatPane({ image, width: image.naturalWidth, height: image.naturalHeight, objects: [], map: null, camera: newCamera() });
}

const drawPanes = () => panes.forEach((pane) => pane.draw?.());

/** A box to tick for each class, with its colour. */
function classRow(number, amount, ticked, changed) {
  const box = make("input", { type: "checkbox", checked: ticked });
  box.addEventListener("change", () => changed(box.checked));
  const swatch = make("span", { className: "swatch" });
  swatch.style.background = colourOf(number);
  return make("label", { className: "class", title: facts.classes[number] }, box, swatch,
    make("span", { className: "word", textContent: facts.classes[number] }), make("span", { className: "number", textContent: amount }));
}

/** Where a query was found, and how far that is from where it is. */
function placeOf({ position, truth }) {
  const words = position.latitude === undefined ? `row ${position.row}, column ${position.column} of the first tile`
    : `found at ${position.latitude.toFixed(6)}, ${position.longitude.toFixed(6)}`;
  return truth?.error_m === undefined ? words : `${words}, ${truth.error_m.toFixed(1)} m from its own place`;
}

/** A record's lists in words: a title and rows. */
function tableOf(record) {
  if (record?.matches) {
    const alike = (match) => match.similarity.toFixed(3) + (match.rerank === undefined ? "" : ` + ${match.rerank.toFixed(3)}`);
    return ["Tiles, similarity", record.matches.map((match, at) => [at + 1, shownName(match.tile), alike(match)])];
  }
  // Windows of an image, on it and on reduced ones.
  if (record?.levels) return ["Levels", record.levels.map((level) => [
    level.factor === 1 ? "image" : `1/${level.factor}`, `${level.windows} window${level.windows === 1 ? "" : "s"}`, `${level.detections} found`,
  ])];
  return ["", []];
}

function fillSide(item, record) {
  const lines = [item.measure === null ? "" : `${facts.measure}: ${item.measure.toFixed(3)}`,
    item.sequence < 0 ? "" : `sequence ${shownName(facts.sequences[item.sequence])}`,
    record?.width ? `${record.width} × ${record.height} pixels` : "", record?.position ? placeOf(record) : ""].filter(Boolean);
  $("view-summary").textContent = lines.join("; ");
  $("view-summary").hidden = !lines.length;
  const [title, rows] = tableOf(record);
  $("view-table-part").hidden = !rows.length;
  $("view-table-title").textContent = title;
  $("view-table").replaceChildren(...rows.map((row) => make("tr", {}, ...row.map((word) => make("td", { textContent: word })))));
  const layered = panes.some((pane) => pane.map || pane.objects?.length || pane.boxes);
  const counts = new Map(item.amounts.map((of) => [of[0], of.length === 2 ? `${(of[1] / 10).toFixed(1)} %` : of[1]]));
  for (const entry of layered ? record?.truth ?? [] : []) if (!counts.has(numberOf(entry.label))) counts.set(numberOf(entry.label), 0);
  $("view-classes-part").hidden = !layered || !counts.size;
  $("view-classes").replaceChildren(...[...counts].map(([number, amount]) => classRow(number, amount, !look.hidden.has(number), (ticked) => {
    if (ticked) look.hidden.delete(number); else look.hidden.add(number);
    panes.forEach((pane) => pane.repaint?.());
    drawPanes();
  })));
  $("view-score-part").hidden = !layered || item.best === null;
  $("opacity-part").hidden = !panes.some((pane) => pane.map || pane.objects?.some((object) => object.mask));
  const links = [];
  const link = (word, href) => links.push(make("a", { textContent: word, href, target: "_blank", rel: "noopener" }));
  for (const file of record?.files ?? []) link(shownName(file), urlOf(file));
  if (facts.originals !== null) link("the file itself", urlOf(`${facts.originals}/${item.name}`));
  link("link to this record", "#" + urlOf(item.name));
  links.at(-1).target = "_self";
  $("links").replaceChildren(...links);
  $("record-part").hidden = !record;
  if (record) {
    const { files, ...rest } = record, text = JSON.stringify(rest, null, 1);
    $("record").textContent = text.length > 2e5 ? `${text.slice(0, 2e5)}\n… ${text.length - 2e5} more letters` : text;
  }
}

function closeView() {
  if ($("view").open) $("view").close();
  leaveView();
}

function leaveView() {
  asked += 1;
  delete $("view").dataset.shown;
  panes = [];
  $("panes").replaceChildren();
  location.replace("#");
  reveal();
  drawGrid();
  $("grid").focus();
}

// The event comes some time after the dialog was closed, when another item may be open already.
$("view").addEventListener("close", () => { if (!$("view").open) leaveView(); });
$("close").addEventListener("click", closeView);
$("before").addEventListener("click", () => openView(current - 1));
$("after").addEventListener("click", () => openView(current + 1));
$("view-score").addEventListener("input", () => {
  look.score = Number($("view-score").value);
  $("view-score-value").textContent = look.score.toFixed(2);
  drawPanes();
});
$("opacity").addEventListener("input", () => { look.opacity = Number($("opacity").value); drawPanes(); });
new ResizeObserver(drawPanes).observe($("panes"));

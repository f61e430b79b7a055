const THEMES = ["system", "dark", "light"];
document.title = facts.title;
$("title").textContent = facts.title;
const notes = [
  facts.pending ? `${facts.pending} ${facts.units} are not done yet.` : "",
  facts.left_out ? `${facts.left_out} more ${facts.units} are not shown: a page has ${items.length} at most.` : "",
  facts.measure === null ? "" : `Worst first, by ${facts.measure}.`,
].filter(Boolean);
$("note").hidden = !notes.length;
$("note").textContent = notes.join(" ");

function choices(select, entries) {
  select.replaceChildren(...entries.map(([value, word]) => make("option", { value, textContent: word })));
}

choices($("order"), Object.entries(ORDERS).map(([name, order]) => [name, order.word]));
$("order").value = ordering.by;
choices($("status"), [
  ["all", `everything (${items.length})`], ["done", `done (${items.length - skippedCount})`], ["skipped", `skipped (${skippedCount})`],
  ...facts.reasons.slice(0, 200).map((reason, number) => [String(number), `skipped: ${shownName(reason)}`]),
]);
$("status-filter").hidden = !skippedCount;
choices($("sequence"), [[-1, "all"], ...facts.sequences.map((name, number) => [number, shownName(name)])]);
$("sequence-filter").hidden = !facts.sequences.length;
$("score-filter").hidden = !scored && !measured;
if (measured) $("score-word").textContent = facts.measure.replace(/^./u, (letter) => letter.toUpperCase());
$("amount-title").textContent = shares ? "Share, %" : "Objects";

const totals = facts.classes.map(() => 0);
for (const item of items) for (const of of item.amounts) totals[of[0]] += 1;
$("classes").replaceChildren(...totals.map((total, number) => classRow(number, total, false, (ticked) => {
  if (ticked) filters.classes.add(number); else filters.classes.delete(number);
  refresh();
})));
$("class-filter").hidden = !facts.classes.length;
$("amount-filter").hidden = !facts.classes.length;

$("search").addEventListener("input", () => { filters.text = $("search").value.toLowerCase(); refresh(); });
$("order").addEventListener("change", () => { ordering.by = $("order").value; refresh(); });
$("reverse").addEventListener("click", () => {
  ordering.reversed = !ordering.reversed;
  $("reverse").textContent = ordering.reversed ? "↑" : "↓";
  $("reverse").setAttribute("aria-pressed", ordering.reversed);
  refresh();
});
$("status").addEventListener("change", () => { filters.status = $("status").value; refresh(); });
$("sequence").addEventListener("change", () => { filters.sequence = Number($("sequence").value); refresh(); });
$("score").addEventListener("input", () => {
  filters.score = Number($("score").value);
  $("score-value").textContent = filters.score.toFixed(2);
  refresh();
});
for (const [name, without] of [["least", 0], ["most", Infinity]]) $(name).addEventListener("input", () => {
  filters[name] = $(name).value === "" ? without : Number($(name).value);
  refresh();
});
$("clear").addEventListener("click", () => {
  Object.assign(filters, { text: "", score: 0, least: 0, most: Infinity, status: "all", sequence: -1 });
  filters.classes.clear();
  for (const name of ["search", "least", "most"]) $(name).value = "";
  for (const box of $("classes").querySelectorAll("input")) box.checked = false;
  Object.assign($("status"), { value: "all" });
  Object.assign($("sequence"), { value: "-1" });
  Object.assign($("score"), { value: 0 });
  $("score-value").textContent = "0";
  refresh();
});
$("filters").addEventListener("click", () => {
  $("filters").setAttribute("aria-expanded", $("body").classList.toggle("filtering"));
});
let theme = 0;
$("theme").addEventListener("click", () => {
  theme = (theme + 1) % THEMES.length;
  if (theme) document.documentElement.dataset.theme = THEMES[theme]; else delete document.documentElement.dataset.theme;
  $("theme").textContent = `Theme: ${THEMES[theme]}`;
  drawPanes();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target, open = $("view").open;
  const typing = target.matches("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape" && !open && typing) { target.blur(); $("grid").focus(); return; }
  if (typing) {
    if (event.key === "Enter" && target === $("search")) $("grid").focus();
    return;
  }
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (event.key in steps) {
    event.preventDefault();
    const place = current + (open ? Math.sign(steps[event.key]) : steps[event.key]);
    if (place < 0 || place >= shown.length) return;
    if (open) openView(place);
    else { goTo(place); reveal(); drawGrid(); }
  } else if (event.key === "/" && !open) {
    event.preventDefault();
    $("search").focus();
    $("search").select();
  } else if (event.key === "Enter" && !open && (target === $("grid") || target === document.body)) {
    event.preventDefault();
    openView(current);
  } else if ((event.key === "Home" || event.key === "End") && !open) {
    event.preventDefault();
    goTo(event.key === "Home" ? 0 : shown.length - 1);
    reveal();
    drawGrid();
  }
});

/** Opens what the address names. */
function follow() {
  if (location.hash.length < 2) return;
  const address = location.hash.slice(1);
  let place = shown.findIndex((item) => urlOf(item.name) === address);
  // Typed by hand, or as another program writes it.
  if (place < 0) place = shown.findIndex((item) => item.name === decoded(address));
  if (place >= 0 && (!$("view").open || place !== current)) openView(place);
}
window.addEventListener("hashchange", follow);

refresh();
$("grid").focus();
follow();

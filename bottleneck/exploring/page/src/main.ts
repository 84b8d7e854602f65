// The explorer: builds the parts, and connects them.

import { CardPanel } from "./card";
import { choose } from "./choose";
import { button, byId, counted, h, isTyping, name, percent, put, say } from "./dom";
import { edit, labelOfKey, refit, step, tellRefitted, toggleExcluded } from "./edits";
import { FindingsPanel, SuggestionsPanel } from "./findings";
import { listen } from "./gestures";
import { PictureGrid } from "./grid";
import { Legend } from "./legend";
import { ImageMap } from "./map";
import type { Theme } from "./palette";
import { postPicture } from "./server";
import { store } from "./store";
import { Tabs } from "./tabs";
import type { SearchResult } from "./types";

const OFTEN = 500; // milliseconds between looks at the server while it works
const SELDOM = 5000;

const map = new ImageMap();
const legend = new Legend();
const tabs = new Tabs();
const card = new CardPanel(openRow);
const findings = new FindingsPanel(openRow);
const suggestions = new SuggestionsPanel(openRow);
const grid = new PictureGrid(openRow);

let several: number[] = []; // the selection that one of its images was opened from

/** Show an image: its card, and its place on the map. It alone is selected, so that edits are of what is seen. */
function openRow(row: number): void {
  if (store.selection.length > 1) several = store.selection;
  store.select([row]);
  tabs.show("image");
  void card.show(row);
  map.hover(row);
  map.showRow(row);
}

// --- selection ---------------------------------------------------------------------------------------------------

map.onPick = (row, adding) => {
  if (row === null) return adding ? undefined : clearSelection();
  if (!adding) {
    store.select([row]);
    openRow(row);
    return;
  }
  store.select(store.selection.includes(row) ? store.selection.filter((one) => one !== row) : [...store.selection, row]);
  tabs.show("selected");
};

map.onLasso = (rows, adding) => {
  setLasso(false);
  if (!rows.length && !adding) return say("No image inside of the line.");
  store.select(adding ? [...store.selection, ...rows] : rows);
  tabs.show("selected");
};

legend.onSelect = (rows) => {
  store.select(rows);
  tabs.show("selected");
};

function selectVisible(): void {
  store.select(map.visible());
  tabs.show("selected");
  grid.element.focus();
}

function clearSelection(): void {
  map.mark(null);
  store.select([]);
}

store.on("selection", () => {
  const rows = store.arranged(store.selection);
  grid.show(rows);
  byId("selected-count").textContent = rows.length ? counted(rows.length, "image") : "";
  byId("tab-selected-count").textContent = rows.length ? rows.length.toLocaleString("en") : "";
  byId("no-selection").hidden = rows.length > 0;
  byId("selection-actions").hidden = !rows.length;
  if (rows.length !== 1) several = [];
  byId("action-back").hidden = !several.length;
  byId("action-back").textContent = `Back to ${several.length.toLocaleString("en")}`;
});

function setLasso(on: boolean): void {
  map.lassoing = on;
  byId("lasso").setAttribute("aria-pressed", String(on));
  byId("map").classList.toggle("lassoing", on);
}

// --- edits -------------------------------------------------------------------------------------------------------

async function relabel(): Promise<void> {
  const rows = store.selection;
  if (!rows.length) return edit("label", null, []);
  const found = await choose(`Label of ${counted(rows.length, "image")}`, store.state.classes, "no label");
  if (found) await edit("label", found.value, rows);
}

async function tag(): Promise<void> {
  const rows = store.selection;
  if (!rows.length) return edit("tag", "", []);
  const column = store.columns.get("tag");
  const known = column && "codes" in column ? column.info.values : [];
  const found = await choose(`Tag of ${counted(rows.length, "image")}`, known);
  if (found?.value) await edit("tag", found.value, rows);
}

function labelByNumber(number: number): void {
  const label = labelOfKey(number);
  if (label === undefined) return say(`No class has the key ${number}.`, true);
  void edit("label", label, store.selection);
}

// --- search by a picture ------------------------------------------------------------------------------------------

async function search(picture: Blob): Promise<void> {
  say("Computing the features of the picture …");
  try {
    const layout = store.layout?.name ?? "pca";
    const result = await postPicture<SearchResult>(`/api/search?layout=${encodeURIComponent(layout)}`, picture);
    store.select(result.neighbours.map((one) => one.row));
    tabs.show("image");
    card.showSearch(result, picture);
    if (result.x !== null && result.y !== null) map.mark([result.x, result.y]);
    say(`The ${counted(result.neighbours.length, "nearest image")} are selected.`);
  } catch (error) {
    say(`Cannot search by this file: ${(error as Error).message}`, true);
  }
}

// --- the header ---------------------------------------------------------------------------------------------------

function showHeader(): void {
  const { state } = store;
  document.title = `${state.title} – bottleneck`;
  put(byId("title"), name(state.title), h("span", { class: "quiet" }, ` ${counted(state.n, "image")}`));
  showLayouts();
  const model = state.model;
  const fitting = state.tasks.refit.state === "running";
  const accuracy = model?.accuracy == null ? null : h("strong", {}, percent(model.accuracy));
  put(byId("model"), fitting ? "training …" : accuracy, !fitting && model ? ` ${model.text}` : null);
  byId("model").title = model?.text ?? "";
  byId<HTMLButtonElement>("undo").disabled = !state.edits.can_undo;
  byId<HTMLButtonElement>("redo").disabled = !state.edits.can_redo;
  byId<HTMLButtonElement>("refit").disabled = fitting;
  const edits = state.edits.count ? `${counted(state.edits.count, "edit")} in ` : "edits go to ";
  put(byId("edits"), edits, name(state.edits.file));
  byId("edits-problem").textContent = state.edits.problem ?? "";
}

function showLayouts(): void {
  put(
    byId("layouts"),
    ...store.state.layouts.map((layout) => {
      const isReady = layout.state === "ready";
      const text = layout.state === "running" && layout.progress ? `${layout.title} ${percent(layout.progress, 0)}` : layout.title;
      return button(text, () => void store.chooseLayout(layout.name).then(showLayouts), {
        "aria-pressed": String(store.layout?.name === layout.name),
        disabled: !isReady,
        title: layout.error ?? "",
      });
    }),
  );
}

function setTheme(theme: Theme): void {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  legend.theme = theme;
  map.setTheme(theme);
  if (store.state) legend.show();
}

function toggleTheme(): void {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

// --- keys and buttons ---------------------------------------------------------------------------------------------

const keys: Record<string, () => void> = {
  r: () => void relabel(),
  x: () => void toggleExcluded(store.selection),
  t: () => void tag(),
  f: () => void refit(),
  a: selectVisible,
  l: () => setLasso(!map.lassoing),
  p: () => {
    map.pictures = !map.pictures;
    map.redraw();
  },
  g: () => byId("tab-findings").click(),
  n: () => byId("tab-next").click(),
  m: () => byId("above").focus(),
  "?": () => byId<HTMLDialogElement>("help").showModal(),
  Escape: () => (map.lassoing ? setLasso(false) : clearSelection()),
};

document.addEventListener("keydown", (event) => {
  if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    const action = key === "z" ? (event.shiftKey ? "redo" : "undo") : key === "y" ? "redo" : null;
    if (!action) return;
    event.preventDefault();
    void step(action);
  } else if (!event.altKey && /^[0-9]$/.test(key)) labelByNumber(Number(key));
  else if (!event.altKey && keys[key]) {
    event.preventDefault();
    keys[key]();
  }
});

const presses: Record<string, () => void> = {
  undo: () => void step("undo"),
  redo: () => void step("redo"),
  refit: keys.f,
  lasso: keys.l,
  theme: toggleTheme,
  "show-help": keys["?"],
  "show-all": () => store.clearFilters(),
  "select-visible": selectVisible,
  "zoom-in": () => zoom(1.6),
  "zoom-out": () => zoom(1 / 1.6),
  "zoom-fit": () => {
    map.view.fit();
    map.redraw();
  },
  "action-label": keys.r,
  "action-exclude": keys.x,
  "action-tag": keys.t,
  "action-clear": clearSelection,
  "action-back": () => {
    store.select(several);
    tabs.show("selected");
  },
  "open-picture": () => byId<HTMLInputElement>("picture-file").click(),
};
for (const [id, press] of Object.entries(presses)) byId(id).addEventListener("click", press);

function zoom(factor: number): void {
  map.view.zoomAt(factor, map.view.width / 2, map.view.height / 2);
  map.redraw();
}

byId<HTMLInputElement>("picture-file").addEventListener("change", (event) => {
  const input = event.target as HTMLInputElement;
  if (input.files?.[0]) void search(input.files[0]);
  input.value = "";
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const picture = event.dataTransfer?.files[0];
  if (picture) void search(picture);
});

// --- following the server -----------------------------------------------------------------------------------------

store.on("columns", () => void card.refresh());
store.on("state", showHeader);
store.on("state", tellRefitted);
store.on("state", () => followIn(store.isBusy ? OFTEN : SELDOM));
tabs.onShow = (tab) => {
  if (tab === "findings") void findings.refresh().then(() => followIn(OFTEN)); // it may have started an audit
  if (tab === "next") void suggestions.refresh().then(() => followIn(OFTEN));
  if (tab === "selected") grid.show(store.arranged(store.selection));
};

async function follow(): Promise<void> {
  const revision = store.state?.revision;
  const working = store.state && store.isBusy;
  try {
    await store.refresh();
    const changed = revision !== store.state.revision || working;
    if (changed && tabs.current === "findings") await findings.refresh();
    if (changed && tabs.current === "next") await suggestions.refresh();
  } catch {
    followIn(SELDOM); // the banner says so; the next look may find it again
  }
}

function followIn(milliseconds: number): void {
  clearTimeout(next);
  next = window.setTimeout(() => void follow(), milliseconds);
}
let next = 0;

put(byId("panel-selected-grid"), grid.element);
byId<HTMLDetailsElement>("legend-box").open = window.innerWidth > 760;
listen(map);
tabs.show("image");
setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
void follow();

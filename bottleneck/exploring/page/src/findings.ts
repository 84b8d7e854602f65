// What an audit found, and what to label next, as lists with pictures.

import { showPicture } from "./digests";
import { button, byId, h, name, percent, put } from "./dom";
import { edit, toggleExcluded } from "./edits";
import { get, post } from "./server";
import { store } from "./store";
import type { Finding, Findings, Progress, Suggestions } from "./types";

const MOST = 50; // findings of a kind that are listed at once

export class FindingsPanel {
  private readonly panel = byId("panel-findings");
  private readonly open_ = new Set(["label error"]);
  private readonly limits = new Map<string, number>();

  constructor(private readonly open: (row: number) => void) {}

  async refresh(): Promise<void> {
    const found = await get<Findings>("/api/findings").catch(() => null);
    if (!found) return;
    if (found.state !== "ready") return put(this.panel, waiting("Looking for label errors, copies and outliers", found));
    const again = button("Search again", () => void post("/api/audit", {}).then(() => store.refresh()));
    put(
      this.panel,
      ...found.kinds.map((kind) => this.kind(kind, found.findings.filter((one) => one.kind === kind.kind))),
      ...found.remarks.map((text) => h("p", { class: "quiet" }, text)),
      h("p", {}, again, h("span", { class: "quiet" }, " with the current labels")),
    );
  }

  private kind(kind: { kind: string; title: string; count: number }, found: Finding[]): HTMLElement {
    const limit = this.limits.get(kind.kind) ?? MOST;
    const more = found.length - limit;
    const details = h(
      "details",
      { open: this.open_.has(kind.kind) && kind.count > 0 },
      h("summary", {}, `${kind.title} `, h("span", { class: "count" }, String(kind.count))),
      kind.count > 0 && button(`Select all ${kind.count}`, () => store.select(found.map((one) => one.row))),
      h("ul", { class: "findings" }, found.slice(0, limit).map((one) => this.line(one))),
      more > 0 && button(`Show ${Math.min(more, MOST)} more`, () => this.more(kind.kind, limit)),
    );
    details.addEventListener("toggle", () => this.open_[details.open ? "add" : "delete"](kind.kind));
    return details;
  }

  private more(kind: string, limit: number): void {
    this.limits.set(kind, limit + MOST);
    void this.refresh();
  }

  private line(found: Finding): HTMLElement {
    const { row, other, suggested } = found;
    const done = suggested !== null && store.category("label", row) === suggested;
    const isExcluded = store.category("excluded", row) === "excluded";
    return h(
      "li",
      { class: done || isExcluded ? "done" : "" },
      picture(row, this.open),
      other !== null && picture(other, this.open, "most similar image"),
      h(
        "div",
        {},
        h("p", {}, done ? "now labelled " : "labelled ", name(store.category("label", row)), done ? "." : `: ${found.text}`),
        h(
          "p",
          { class: "actions" },
          suggested !== null && !done && button(`Label ${suggested}`, () => void edit("label", suggested, [row])),
          button(isExcluded ? "Include" : "Exclude", () => void toggleExcluded([row])),
        ),
      ),
    );
  }
}

export class SuggestionsPanel {
  private readonly panel = byId("panel-next");

  constructor(private readonly open: (row: number) => void) {}

  async refresh(): Promise<void> {
    const found = await get<Suggestions>("/api/suggestions?budget=50").catch(() => null);
    if (!found) return;
    if (found.state !== "ready") return put(this.panel, waiting("Choosing what to label next", found));
    if (!found.suggestions.length) {
      return put(this.panel, h("p", { class: "quiet" }, `Nothing to suggest${found.text ? `: ${found.text}` : ""}.`));
    }
    const rows = found.suggestions.map((one) => one.row);
    put(
      this.panel,
      h("p", {}, "The images whose labels teach a head most, the most useful first."),
      button(`Select all ${rows.length}`, () => store.select(rows)),
      h(
        "ul",
        { class: "findings" },
        found.suggestions.map((one) => h("li", {}, picture(one.row, this.open), h("div", {}, h("p", {}, one.text)))),
      ),
    );
  }
}

function picture(row: number, open: (row: number) => void, what = "image"): HTMLElement {
  const label = `${what}, ${store.category("label", row) ?? "no label"}`;
  const image = h("img", { alt: "", width: 60, height: 60 });
  showPicture(image, row, 96);
  return h("button", { type: "button", class: "thumb", click: () => open(row), "aria-label": `open the ${label}`, title: label }, image);
}

function waiting(text: string, task: Progress): HTMLElement {
  if (task.state === "failed") return h("p", { class: "problem" }, task.error ?? "It failed.");
  const done = task.progress ? `, ${percent(task.progress, 0)}` : "";
  return h("p", { class: "quiet", role: "status" }, `${text}${done} …`);
}

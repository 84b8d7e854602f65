// What the colours mean, and filters: a category is hidden by a click, numbers by their lowest and highest.

import { labelOfKey } from "./edits";
import { button, byId, counted, h, name, put } from "./dom";
import { categoryColour, noneColour, rampStops, type Theme } from "./palette";
import { NONE, store, type Categories, type Numbers } from "./store";
import { bounds } from "./viewport";

const DIGITS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
const MOST = 200; // categories that are listed

export class Legend {
  theme: Theme = "light";
  /** Called with all rows of a category. */
  onSelect: (rows: number[]) => void = () => {};
  private readonly choice = byId<HTMLSelectElement>("colour-by");
  private readonly list = byId("legend");

  constructor() {
    this.choice.addEventListener("change", () => store.colour(this.choice.value));
    for (const change of ["columns", "colouring"] as const) store.on(change, () => this.show());
  }

  show(): void {
    const infos = store.state.columns;
    put(this.choice, ...infos.map((info) => h("option", { value: info.name }, info.title)));
    this.choice.value = store.colourBy;
    const column = store.columns.get(store.colourBy);
    if (!column) return put(this.list);
    put(this.list, "codes" in column ? this.categories(column) : this.numbers(column));
    byId("show-all").hidden = !store.isFiltered;
  }

  private categories(column: Categories): HTMLElement {
    const { name: by, values } = column.info;
    const counts = new Map<number, number>();
    for (const code of column.codes) counts.set(code, (counts.get(code) ?? 0) + 1);
    const codes = [...values.keys()].filter((code) => counts.get(code)).slice(0, MOST);
    const lines = codes.map((code) =>
      this.line(code, values[code], counts.get(code) ?? 0, categoryColour(by, values, code, this.theme)),
    );
    const none = counts.get(NONE);
    if (none) lines.push(this.line(NONE, null, none, noneColour(this.theme)));
    const left = values.length - codes.length;
    return h("ul", {}, lines, codes.length === MOST && left > 0 && h("li", { class: "quiet" }, `and ${left} more`));
  }

  private line(code: number, text: string | null, count: number, colour: string): HTMLElement {
    const hidden = store.filter().hidden;
    const toggle = h("input", {
      type: "checkbox",
      change: () => store.setFilter(({ hidden }) => void (hidden.delete(code) || hidden.add(code))),
    });
    toggle.checked = !hidden.has(code);
    const swatch = h("span", { class: "swatch" });
    swatch.style.background = colour;
    const only = button("only", () => this.only(code), { "aria-label": `show only ${text ?? "those without"}` });
    const all = button("select", () => this.selectAll(code), { "aria-label": `select ${text ?? "those without"}` });
    const key = store.colourBy === "label" ? DIGITS.find((one) => labelOfKey(one) === text) : undefined;
    const digit = key !== undefined && h("kbd", { title: `Press ${key} to label the selected images so` }, String(key));
    const title = h("span", { class: "name", title: text ?? "" }, name(text, "none"));
    return h(
      "li",
      {},
      h("label", {}, toggle, swatch, title),
      digit,
      h("span", { class: "count" }, count.toLocaleString("en")),
      h("span", { class: "more" }, only, all),
    );
  }

  /** Hide all other categories; or show them again if they are hidden. */
  private only(code: number): void {
    const column = store.columns.get(store.colourBy);
    if (!column || !("codes" in column)) return;
    const others = [...column.info.values.keys(), NONE].filter((one) => one !== code);
    store.setFilter((filter) => {
      const isOnly = others.every((one) => filter.hidden.has(one)) && !filter.hidden.has(code);
      filter.hidden = new Set(isOnly ? [] : others);
    });
  }

  private selectAll(code: number): void {
    const column = store.columns.get(store.colourBy);
    if (!column || !("codes" in column)) return;
    const shown = store.shown();
    const rows: number[] = [];
    column.codes.forEach((one, row) => one === code && shown[row] && rows.push(row));
    this.onSelect(rows);
  }

  private numbers(column: Numbers): HTMLElement {
    const [low, high] = bounds(column.numbers);
    const bar = h("div", { class: "ramp", "aria-hidden": "true" });
    bar.style.background = `linear-gradient(to right, ${rampStops()})`;
    const filter = store.filter();
    const field = (label: string, key: "low" | "high", value: number) => {
      const input = h("input", { type: "range", min: low, max: high, step: (high - low) / 200 || 1 });
      input.value = String(value);
      const shown = h("output", {}, digits(value));
      input.addEventListener("input", () => put(shown, digits(Number(input.value))));
      input.addEventListener("change", () => {
        const chosen = Number(input.value);
        const end = key === "low" ? chosen <= low : chosen >= high;
        store.setFilter((one) => (one[key] = end ? (key === "low" ? -Infinity : Infinity) : chosen));
      });
      return h("label", { class: "range" }, h("span", {}, label), input, shown);
    };
    const known = column.numbers.reduce((count, value) => count + (value === value ? 1 : 0), 0);
    return h(
      "div",
      {},
      bar,
      h("div", { class: "ends" }, h("span", {}, digits(low)), h("span", {}, digits(high))),
      field("from", "low", Math.max(filter.low, low)),
      field("to", "high", Math.min(filter.high, high)),
      known < column.numbers.length && h("p", { class: "quiet" }, `${counted(column.numbers.length - known, "image")} without`),
    );
  }
}

const digits = (value: number): string => (Math.abs(value) < 0.01 && value ? value.toExponential(1) : value.toFixed(2));

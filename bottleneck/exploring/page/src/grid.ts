// Pictures of many rows: only those in view are there, so that 100,000 scroll as well as ten.

import { h, put } from "./dom";
import { showPicture } from "./digests";
import { store } from "./store";

const CELL = 84; // pixels with the gap
const SPARE = 2; // lines above and below the window

export class PictureGrid {
  readonly element = h("div", { class: "grid", role: "listbox", "aria-label": "Selected images", tabindex: 0 });
  private readonly content = h("div", { class: "grid-content", role: "presentation" });
  private rows: number[] = [];
  private active = 0;
  private first = -1;
  private across = 1;

  constructor(private readonly open: (row: number) => void) {
    put(this.element, this.content);
    this.element.addEventListener("scroll", () => this.fill());
    this.element.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.fill(true)).observe(this.element);
  }

  show(rows: number[]): void {
    this.rows = rows;
    this.active = 0;
    this.element.scrollTop = 0;
    this.fill(true);
  }

  private key(event: KeyboardEvent): void {
    const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.across, ArrowDown: this.across };
    if (event.key === "Enter" && this.rows.length) this.open(this.rows[this.active]);
    else if (steps[event.key]) {
      this.active = Math.min(Math.max(this.active + steps[event.key], 0), this.rows.length - 1);
      const top = Math.floor(this.active / this.across) * CELL;
      if (top < this.element.scrollTop) this.element.scrollTop = top;
      if (top + CELL > this.element.scrollTop + this.element.clientHeight) {
        this.element.scrollTop = top + CELL - this.element.clientHeight;
      }
      this.fill(true);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  private fill(anew = false): void {
    if (!this.element.clientWidth) return;
    this.across = Math.max(1, Math.floor(this.element.clientWidth / CELL));
    const first = Math.max(0, Math.floor(this.element.scrollTop / CELL) - SPARE);
    if (first === this.first && !anew) return;
    this.first = first;
    const lines = Math.ceil(this.element.clientHeight / CELL) + 2 * SPARE;
    const shown = this.rows.slice(first * this.across, (first + lines) * this.across);
    this.content.style.height = `${Math.ceil(this.rows.length / this.across) * CELL}px`;
    put(this.content, ...shown.map((row, place) => this.cell(row, first * this.across + place)));
    this.element.setAttribute("aria-activedescendant", this.rows.length ? `cell-${this.active}` : "");
  }

  private cell(row: number, place: number): HTMLElement {
    const label = store.category("label", row);
    const image = h("img", { alt: "", width: 76, height: 76 });
    showPicture(image, row, 96);
    const cell = h(
      "div",
      {
        class: `cell${store.category("excluded", row) === "excluded" ? " excluded" : ""}`,
        role: "option",
        id: `cell-${place}`,
        "aria-selected": String(place === this.active),
        "aria-label": label ?? "no label",
        "aria-setsize": this.rows.length,
        "aria-posinset": place + 1,
        title: label ?? "no label",
        click: () => this.open(row),
      },
      image,
    );
    cell.style.left = `${(place % this.across) * CELL}px`;
    cell.style.top = `${Math.floor(place / this.across) * CELL}px`;
    return cell;
  }
}

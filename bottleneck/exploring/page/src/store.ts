// What the page knows: the server's state, columns and layouts, and what the user chose. Parts listen for changes.

import { get, getBytes } from "./server";
import type { CategoryInfo, ColumnInfo, LayoutState, NumberInfo, State } from "./types";

export const NONE = 65535; // the index of an image without a category

export type Categories = { info: CategoryInfo; codes: Uint16Array };
export type Numbers = { info: NumberInfo; numbers: Float32Array };
export type Column = Categories | Numbers;

export type Layout = { name: string; x: Float32Array; y: Float32Array; order: Uint32Array; places: Uint32Array };

export type Change = "state" | "columns" | "layout" | "selection" | "colouring";

type Filter = { hidden: Set<number>; low: number; high: number };

class Store {
  state!: State;
  layout: Layout | null = null;
  layoutName = "pca";
  colourBy = "";
  selection: number[] = [];
  readonly columns = new Map<string, Column>();
  private readonly filters = new Map<string, Filter>();
  private readonly listeners = new Map<Change, (() => void)[]>();
  private followed = false; // whether the user has chosen a layout

  on(change: Change, listener: () => void): void {
    this.listeners.set(change, [...(this.listeners.get(change) ?? []), listener]);
  }

  emit(...changes: Change[]): void {
    for (const change of changes) for (const listener of this.listeners.get(change) ?? []) listener();
  }

  /** Read the state, and then the columns and the layout that have changed. */
  async refresh(): Promise<void> {
    this.state = await get<State>("/api/state");
    const ready = this.state.layouts.filter((one) => one.state === "ready");
    if (!this.followed && ready.length) this.layoutName = ready[ready.length - 1].name;
    await Promise.all([this.readColumns(), this.readLayout(ready)]);
    this.emit("state");
  }

  private async readColumns(): Promise<void> {
    const infos = this.state.columns;
    const stale = infos.filter((info) => this.columns.get(info.name)?.info.revision !== info.revision);
    await Promise.all(stale.map((info) => this.readColumn(info)));
    const names = new Set(infos.map((info) => info.name));
    const gone = [...this.columns.keys()].filter((name) => !names.has(name));
    for (const name of gone) this.columns.delete(name);
    if (!this.columns.has(this.colourBy)) this.colourBy = infos[0]?.name ?? "";
    if (stale.length || gone.length) this.emit("columns");
  }

  private async readColumn(info: ColumnInfo): Promise<void> {
    const data = await getBytes(`/api/columns/${encodeURIComponent(info.name)}`);
    if (info.kind === "category") {
      const before = this.columns.get(info.name);
      const same = before && "codes" in before && before.info.values.join("\n") === info.values.join("\n");
      if (!same) this.filters.delete(info.name);
      this.columns.set(info.name, { info, codes: new Uint16Array(data) });
    } else this.columns.set(info.name, { info, numbers: new Float32Array(data) });
  }

  private async readLayout(ready: LayoutState[]): Promise<void> {
    const name = ready.some((one) => one.name === this.layoutName) ? this.layoutName : ready[0]?.name;
    if (!name || this.layout?.name === name) return;
    const count = this.state.n;
    const data = await getBytes(`/api/layouts/${encodeURIComponent(name)}`);
    const order = new Uint32Array(data, 8 * count, count);
    const places = new Uint32Array(count);
    order.forEach((row, place) => (places[row] = place));
    this.layout = { name, x: new Float32Array(data, 0, count), y: new Float32Array(data, 4 * count, count), order, places };
    this.emit("layout");
  }

  async chooseLayout(name: string): Promise<void> {
    this.followed = true;
    this.layoutName = name;
    await this.readLayout(this.state.layouts.filter((one) => one.state === "ready"));
  }

  colour(by: string): void {
    this.colourBy = by;
    this.emit("colouring");
  }

  select(rows: Iterable<number>): void {
    this.selection = [...new Set(rows)];
    this.emit("selection");
  }

  filter(name = this.colourBy): Filter {
    let found = this.filters.get(name);
    if (!found) this.filters.set(name, (found = { hidden: new Set(), low: -Infinity, high: Infinity }));
    return found;
  }

  /** Change the filter of the column that colours the map. */
  setFilter(change: (filter: Filter) => void): void {
    change(this.filter());
    this.emit("colouring");
  }

  clearFilters(): void {
    this.filters.clear();
    this.emit("colouring");
  }

  get isFiltered(): boolean {
    return [...this.filters.values()].some((one) => one.hidden.size || one.low > -Infinity || one.high < Infinity);
  }

  /** Return whether each row passes all filters. */
  shown(): Uint8Array {
    const shown = new Uint8Array(this.state.n).fill(1);
    for (const [name, filter] of this.filters) {
      const column = this.columns.get(name);
      if (column && "codes" in column && filter.hidden.size) {
        for (let row = 0; row < shown.length; row++) if (filter.hidden.has(column.codes[row])) shown[row] = 0;
      } else if (column && "numbers" in column && (filter.low > -Infinity || filter.high < Infinity)) {
        for (let row = 0; row < shown.length; row++) {
          if (!(column.numbers[row] >= filter.low && column.numbers[row] <= filter.high)) shown[row] = 0;
        }
      }
    }
    return shown;
  }

  /** Return the category of a row in a column, or null. */
  category(name: string, row: number): string | null {
    const column = this.columns.get(name);
    return column && "codes" in column ? (column.info.values[column.codes[row]] ?? null) : null;
  }

  /** Return rows by their place on the map, so that similar pictures come together. */
  arranged(rows: number[]): number[] {
    const places = this.layout?.places;
    return places ? [...rows].sort((one, other) => places[one] - places[other]) : rows;
  }

  get isBusy(): boolean {
    const all = [...this.state.layouts, ...Object.values(this.state.tasks)];
    return all.some((one) => one.state === "running");
  }
}

export const store = new Store();

// The colour of each row by the chosen column; 0 for rows that a filter hides.

import { blend, categoryColour, noneColour, packed, rampColour, type Theme } from "./palette";
import { NONE, store, type Column } from "./store";
import { bounds } from "./viewport";

const STEPS = 256; // of the ramp
const DIMMED = 0.72; // how far rows that are not selected go towards the ground

export function colours(theme: Theme, ground: number): Uint32Array {
  const shown = store.shown();
  const found = new Uint32Array(shown.length);
  const colour = colourOf(store.columns.get(store.colourBy), theme);
  for (let row = 0; row < found.length; row++) if (shown[row]) found[row] = colour(row);
  if (store.selection.length > 1) dim(found, ground);
  return found;
}

function dim(found: Uint32Array, ground: number): void {
  const selected = new Uint8Array(found.length);
  for (const row of store.selection) selected[row] = 1;
  const dimmed = new Map<number, number>();
  for (let row = 0; row < found.length; row++) {
    if (selected[row] || !found[row]) continue;
    let colour = dimmed.get(found[row]);
    if (colour === undefined) dimmed.set(found[row], (colour = blend(found[row], ground, DIMMED)));
    found[row] = colour;
  }
}

function colourOf(column: Column | undefined, theme: Theme): (row: number) => number {
  const none = packed(noneColour(theme));
  if (!column) return () => none;
  if ("numbers" in column) {
    const [low, high] = bounds(column.numbers);
    const ramp = Uint32Array.from({ length: STEPS }, (_, step) => packed(rampColour(step / (STEPS - 1))));
    const factor = (STEPS - 1) / (high - low || 1);
    return (row) => {
      const value = column.numbers[row];
      return value === value ? ramp[Math.round((value - low) * factor)] : none; // NaN is not itself
    };
  }
  const { name, values } = column.info;
  const table = values.map((_, index) => packed(categoryColour(name, values, index, theme)));
  return (row) => (column.codes[row] === NONE ? none : table[column.codes[row]]);
}

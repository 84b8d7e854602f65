// Edits: each is on the server's disk before the page shows it.

import { say, counted, percent } from "./dom";
import { get, post } from "./server";
import { store } from "./store";
import type { Action, Card, Changed } from "./types";

/** Make an edit of images; tell what came of it. */
export async function edit(action: Action, value: string | null, rows: number[]): Promise<void> {
  if (!rows.length) return say("Select images first: click one, or draw around several with L or Shift.", true);
  await attempt(async () => {
    const { changed } = await post<Changed>("/api/edits", { rows, action, ...(value === null ? withoutValue(action) : { value }) });
    const done = { label: value ? `labelled ${value}` : "unlabelled", exclude: "excluded", include: "included again", tag: `tagged ${value}`, untag: `no longer tagged ${value}` };
    say(changed.length ? `${counted(changed.length, "image")} ${done[action]}. Saved.` : "Nothing changed.");
  });
}

const withoutValue = (action: Action) => (action === "label" ? { value: null } : {});

/** Return the class of a digit's key: the class of that name, if classes are called by digits, or else by its place. */
export function labelOfKey(digit: number): string | undefined {
  const { classes } = store.state;
  const areDigits = classes.some((one) => /^[0-9]$/.test(one));
  return areDigits ? classes.find((one) => one === String(digit)) : classes[digit - 1];
}

/** Exclude images, or include them again if all of them are excluded. */
export async function toggleExcluded(rows: number[]): Promise<void> {
  const all = rows.length > 0 && rows.every((row) => store.category("excluded", row) === "excluded");
  await edit(all ? "include" : "exclude", null, rows);
}

export async function step(what: "undo" | "redo"): Promise<void> {
  await attempt(async () => {
    const { text } = await post<Changed>(`/api/${what}`, {});
    say(`${what === "undo" ? "Undone" : "Done again"}: ${text}.`);
  });
}

let awaited = false; // whether a head is being trained that the user asked for
let before: number | null = null; // accuracy of the head that it replaces

export async function refit(): Promise<void> {
  await attempt(async () => {
    before = store.state.model?.cross_validated ? store.state.model.accuracy : null;
    await post("/api/refit", {});
    awaited = true;
    say("Training a head on the current labels.");
  });
}

/** Tell the accuracy of the head that the user asked for, once it is trained. */
export function tellRefitted(): void {
  const model = store.state.model;
  if (!awaited || store.state.tasks.refit.state === "running") return;
  awaited = false;
  if (store.state.tasks.refit.state === "failed") return say(`No head: ${store.state.tasks.refit.error}`, true);
  if (model?.accuracy == null) return;
  const interval = model.accuracy_ci95?.map((share) => percent(share)).join(" to ");
  const [low, high] = model.accuracy_ci95 ?? [1, 0];
  const doubt = before !== null && before >= low && before <= high ? ": chance may explain the difference" : "";
  const change = before === null ? "" : `, before ${percent(before)}${doubt}`;
  say(`Accuracy ${percent(model.accuracy)}${interval ? ` (${interval})` : ""}${change}.`);
}

export const readCard = (row: number): Promise<Card> => get<Card>(`/api/images/${row}`);

async function attempt(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    say(`Not saved: ${error instanceof Error ? error.message : error}`, true);
  }
  await store.refresh().catch(() => {});
}

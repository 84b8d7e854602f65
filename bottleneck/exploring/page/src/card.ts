// The card of one image: the picture, what is known of it, and its nearest neighbours.

import { showPicture } from "./digests";
import { button, byId, h, name, percent, put } from "./dom";
import { edit, readCard } from "./edits";
import { store } from "./store";
import type { Card, Neighbour, SearchResult } from "./types";

export class CardPanel {
  private readonly panel = byId("panel-image");
  private shown = -1;
  private request = 0;

  constructor(private readonly open: (row: number) => void) {}

  /** Show the card of a row; the page stays as it is if another is asked for meanwhile. */
  async show(row: number): Promise<void> {
    const request = ++this.request;
    this.shown = row;
    try {
      const card = await readCard(row);
      if (request === this.request) put(this.panel, ...this.content(card));
    } catch (error) {
      if (request === this.request) put(this.panel, h("p", { class: "problem" }, `No card: ${(error as Error).message}`));
    }
  }

  async refresh(): Promise<void> {
    if (this.shown >= 0) await this.show(this.shown);
  }

  /** Show what a picture that was dropped on the page is like. */
  showSearch(result: SearchResult, picture: Blob): void {
    this.request++;
    this.shown = -1;
    const image = h("img", { class: "picture", alt: "The picture that was searched by" });
    image.src = URL.createObjectURL(picture);
    image.onload = () => URL.revokeObjectURL(image.src);
    put(
      this.panel,
      image,
      h("h2", {}, "Images like this picture"),
      result.prediction !== null && probabilities(result.probabilities),
      familiarity(result.familiarity),
      this.neighbours(result.neighbours),
    );
  }

  private content(card: Card): HTMLElement[] {
    const image = h("img", { class: "picture", alt: `${card.label ?? "no label"}, ${card.path}` });
    if (card.problem === null) showPicture(image, card.row, 256);
    if (card.problem === null) image.addEventListener("load", () => showPicture(image, card.row, 1024), { once: true });
    const changed = card.label !== card.original_label;
    const facts: [string, HTMLElement | string][] = [
      ["label", h("span", {}, name(card.label), changed ? h("span", { class: "quiet" }, " was ", name(card.original_label)) : "")],
    ];
    if (card.split) facts.push(["split", card.split]);
    if (card.group) facts.push(["group", name(card.group)]);
    if (card.width) facts.push(["size", `${card.width} × ${card.height} pixels${card.bytes ? `, ${kilobytes(card.bytes)}` : ""}`]);
    if (card.cluster) facts.push(["cluster", card.cluster]);
    const tags = card.tags.map((tag) =>
      h("span", { class: "tag" }, name(tag), button("×", () => void edit("untag", tag, [card.row]), { "aria-label": `remove tag ${tag}` })),
    );
    return [
      card.problem === null ? image : h("p", { class: "problem" }, card.problem),
      h("p", { class: "path" }, name(card.path)),
      h("dl", {}, facts.flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)])),
      ...(card.excluded ? [h("p", { class: "problem" }, "Excluded: not in the table of labels.")] : []),
      ...(tags.length ? [h("p", { class: "tags" }, ...tags)] : []),
      ...(card.prediction === null ? [] : [h("h2", {}, "Prediction"), probabilities(card.probabilities, card.label)]),
      ...[familiarity(card.familiarity)].filter((one): one is HTMLElement => one !== null),
      ...card.findings.filter((one) => one.suggested === null || one.suggested !== card.label).map((one) => this.finding(card.row, one)),
      h("h2", {}, "Nearest images, by cosine similarity"),
      this.neighbours(card.neighbours),
    ];
  }

  private finding(row: number, found: Card["findings"][number]): HTMLElement {
    const { suggested } = found;
    return h(
      "p",
      { class: "finding" },
      h("strong", {}, found.kind),
      ` ${found.text} `,
      suggested !== null && button(`label ${suggested}`, () => void edit("label", suggested, [row])),
    );
  }

  private neighbours(found: Neighbour[]): HTMLElement {
    return h(
      "ol",
      { class: "neighbours" },
      found.map((one) => {
        const image = h("img", { alt: "", width: 76, height: 76 });
        showPicture(image, one.row, 96);
        const title = `${one.label ?? "no label"}, cosine ${one.cosine.toFixed(3)}`;
        const open = h("button", { type: "button", click: () => this.open(one.row), "aria-label": title, title, "data-row": one.row }, image);
        return h("li", {}, open, h("span", { class: "name" }, name(one.label)), h("span", { class: "quiet" }, one.cosine.toFixed(3)));
      }),
    );
  }
}

function probabilities(found: [string, number][], label: string | null = null): HTMLElement {
  return h(
    "table",
    { class: "probabilities" },
    h("caption", { class: "visually-hidden" }, "Probability of the most probable classes"),
    found.map(([title, share]) => {
      const bar = h("span", { class: "bar" });
      bar.style.width = `${100 * share}%`;
      return h(
        "tr",
        { class: title === label ? "own" : "" },
        h("th", { scope: "row" }, name(title)),
        h("td", { class: "track" }, bar),
        h("td", { class: "number" }, percent(share)),
      );
    }),
  );
}

function familiarity(share: number | null): HTMLElement | null {
  if (share === null) return null;
  const isUnusual = share <= store.state.unfamiliar_at;
  const text = isUnusual ? "unlike the training images: the prediction may mean nothing" : "like the training images";
  return h("p", { class: isUnusual ? "problem" : "quiet" }, `Familiarity ${share.toFixed(3)}: ${text}.`);
}

const kilobytes = (bytes: number): string => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

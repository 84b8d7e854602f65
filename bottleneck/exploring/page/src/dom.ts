// Elements from names and texts. Texts of the dataset are only ever text nodes, so that markup in them does nothing.

type Child = Node | string | null | undefined | false;
type Handler = (event: any) => void;
export type Attributes = Record<string, string | number | boolean | null | undefined | Handler>;

export function h<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Attributes = {},
  ...children: (Child | Child[])[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key, value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  put(element, ...children);
  return element;
}

/** Replace what an element contains. */
export function put(element: Element, ...children: (Child | Child[])[]): void {
  element.replaceChildren(...children.flat().filter((child): child is Node | string => Boolean(child) || child === ""));
}

/** Return a name of the dataset as an element that keeps its own direction of writing. */
export function name(text: string | null, none = "no label"): HTMLElement {
  return text === null ? h("span", { class: "quiet" }, none) : h("bdi", {}, text);
}

export function button(text: string, press: () => void, attributes: Attributes = {}): HTMLButtonElement {
  return h("button", { type: "button", click: press, ...attributes }, text);
}

/** Return the element of index.html with an id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found as T;
}

export const isTyping = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && target.matches("input:not([type=checkbox], [type=range]), textarea, select");

const live = () => byId("messages");

/** Tell a message on the page and to screen readers. */
export function say(text: string, problem = false): void {
  put(live(), text);
  live().classList.toggle("problem", problem);
  live().hidden = false;
  clearTimeout(timer);
  timer = window.setTimeout(() => (live().hidden = true), problem ? 12_000 : 5_000);
}
let timer = 0;

export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`;

export const counted = (count: number, noun: string): string =>
  `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

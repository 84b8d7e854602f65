// A dialog to choose a label or a tag by its first letters, among a thousand if need be, or to write a new one.

import { byId, h, name, put } from "./dom";

const MOST = 60; // that are listed

/** Ask for a name; resolve to null if there is none. */
export function choose(title: string, names: string[], remove?: string): Promise<{ value: string | null } | null> {
  const dialog = byId<HTMLDialogElement>("choose");
  const input = h("input", {
    type: "text",
    role: "combobox",
    "aria-expanded": "true",
    "aria-controls": "choices",
    "aria-autocomplete": "list",
    "aria-label": title,
    autocomplete: "off",
    maxlength: 200,
    dir: "auto",
  });
  const list = h("ul", { id: "choices", role: "listbox", "aria-label": title });
  let options: { value: string | null; element: HTMLElement }[] = [];
  let active = 0;

  return new Promise((resolve) => {
    const close = (found: { value: string | null } | null) => {
      dialog.onclose = null;
      dialog.close();
      resolve(found);
    };
    const option = (value: string | null, ...content: (Node | string)[]) => {
      const element = h("li", { role: "option", id: `choice-${options.length}`, click: () => close({ value }) }, ...content);
      options.push({ value, element });
    };
    const show = () => {
      const typed = input.value.trim();
      options = [];
      for (const one of matching(names, typed)) option(one, name(one));
      if (typed && !names.includes(typed)) option(typed, "new: ", name(typed));
      if (!typed && remove) option(null, h("span", { class: "quiet" }, remove));
      active = 0;
      put(list, ...options.map(({ element }) => element));
      mark();
    };
    const mark = () => {
      options.forEach(({ element }, place) => element.setAttribute("aria-selected", String(place === active)));
      input.setAttribute("aria-activedescendant", options[active]?.element.id ?? "");
      options[active]?.element.scrollIntoView({ block: "nearest" });
    };
    input.addEventListener("input", show);
    input.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) active = (active + step + options.length) % Math.max(options.length, 1);
      else if (event.key === "Enter" && options[active]) close({ value: options[active].value });
      else return;
      event.preventDefault();
      mark();
    });
    put(dialog, h("h2", {}, title), input, list, h("p", { class: "quiet" }, "Enter takes the marked one, Esc leaves."));
    dialog.onclose = () => close(null);
    show();
    dialog.showModal();
    input.focus();
  });
}

/** Return the names that begin with a text, and then those that contain it. */
function matching(names: string[], typed: string): string[] {
  const text = typed.toLocaleLowerCase();
  const begins = names.filter((one) => one.toLocaleLowerCase().startsWith(text));
  const contains = names.filter((one) => !begins.includes(one) && one.toLocaleLowerCase().includes(text));
  return [...begins, ...contains].slice(0, MOST);
}

// The panels at the side, as tabs.

import { byId } from "./dom";

const NAMES = ["image", "selected", "findings", "next"] as const;
export type Tab = (typeof NAMES)[number];

export class Tabs {
  current: Tab = "image";
  /** Called when another panel is shown. */
  onShow: (tab: Tab) => void = () => {};

  constructor() {
    for (const [place, one] of NAMES.entries()) {
      const tab = byId(`tab-${one}`);
      tab.addEventListener("click", () => this.show(one));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = NAMES[(place + step + NAMES.length) % NAMES.length];
        this.show(next);
        byId(`tab-${next}`).focus();
        event.preventDefault();
        event.stopPropagation();
      });
    }
  }

  show(name: Tab): void {
    this.current = name;
    for (const one of NAMES) {
      const [tab, isShown] = [byId(`tab-${one}`), one === name];
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
      byId(`panel-${one}`).hidden = !isShown;
    }
    this.onShow(name);
  }
}

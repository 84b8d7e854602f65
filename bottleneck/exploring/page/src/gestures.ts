// Pointer, wheel and keys on the map.

import { byId } from "./dom";
import type { ImageMap } from "./map";

const STEP = 60; // pixels that an arrow key pans
const CLICK = 4; // pixels that a click may move
const FACTOR = 1.4; // of a key that zooms

export function listen(map: ImageMap): void {
  const canvas = byId<HTMLCanvasElement>("above");
  const pointers = new Map<number, PointerEvent>();
  let [startX, startY, moved] = [0, 0, false];

  const at = (event: MouseEvent): [number, number] => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    [startX, startY] = at(event);
    moved = false;
    if (pointers.size === 1 && (map.lassoing || event.shiftKey)) map.startLine(startX, startY);
  });

  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") map.hover(map.rowAt(x, y));
      return;
    }
    moved ||= Math.hypot(x - startX, y - startY) > CLICK;
    const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
    pointers.set(event.pointerId, event);
    if (map.isDrawing && !other) map.extendLine(x, y);
    else if (other) pinch(before, event, other);
    else if (moved) {
      map.view.pan(event.clientX - before.clientX, event.clientY - before.clientY);
      map.redraw();
    }
  });

  function pinch(before: PointerEvent, now: PointerEvent, other: PointerEvent): void {
    const [x, y] = at(other);
    const apart = (one: PointerEvent) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    map.view.zoomAt(apart(now) / apart(before), x, y);
    map.redraw();
  }

  const end = (event: PointerEvent) => {
    if (!pointers.delete(event.pointerId)) return;
    const adding = event.ctrlKey || event.metaKey;
    if (map.isDrawing) map.endLine(adding);
    if (!moved && event.type === "pointerup" && !pointers.size) {
      const row = map.rowAt(...at(event));
      map.onPick(row < 0 ? null : row, adding || event.shiftKey);
    }
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => map.hover(-1));
  canvas.addEventListener("dblclick", (event) => {
    map.view.zoomAt(2, ...at(event));
    map.redraw();
  });

  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      map.view.zoomAt(2 ** (-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), ...at(event));
      map.redraw();
    },
    { passive: false },
  );

  canvas.addEventListener("keydown", (event) => {
    const { width, height } = map.view;
    const moves: Record<string, () => void> = {
      ArrowLeft: () => map.view.pan(STEP, 0),
      ArrowRight: () => map.view.pan(-STEP, 0),
      ArrowUp: () => map.view.pan(0, STEP),
      ArrowDown: () => map.view.pan(0, -STEP),
      "+": () => map.view.zoomAt(FACTOR, width / 2, height / 2),
      "=": () => map.view.zoomAt(FACTOR, width / 2, height / 2),
      "-": () => map.view.zoomAt(1 / FACTOR, width / 2, height / 2),
      "0": () => map.view.fit(),
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    moves[event.key]();
    map.redraw();
  });
}

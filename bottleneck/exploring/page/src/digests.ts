// Rows to digests, which are what pictures are asked by; loaded in blocks when they are needed.

import { getBytes } from "./server";

const BLOCK = 4096;
const blocks = new Map<number, Promise<Uint8Array>>();

export async function digestOf(row: number): Promise<string> {
  const number = Math.floor(row / BLOCK);
  let block = blocks.get(number);
  if (!block) {
    block = getBytes(`/api/digests/${number}`).then((data) => new Uint8Array(data));
    block.catch(() => blocks.delete(number));
    blocks.set(number, block);
  }
  const start = 32 * (row - number * BLOCK);
  return Array.from((await block).subarray(start, start + 32), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Let an <img> show the picture of a row. */
export function showPicture(image: HTMLImageElement, row: number, size: 96 | 256 | 1024): void {
  image.dataset.row = String(row);
  image.addEventListener("error", () => image.classList.add("broken"), { once: true });
  void digestOf(row).then(
    (digest) => {
      if (image.dataset.row === String(row)) image.src = `/api/pictures/${digest}?size=${size}`;
    },
    () => image.classList.add("broken"),
  );
}

// Thumbnails of the map: sprites of 64 pictures that lie near each other, fetched when they come into view.

import type { Layout } from "./store";

const SIDE = 8; // pictures in a line of a sprite
const MOST = 160; // sprites that are kept
const AT_ONCE = 4; // requests

export class Tiles {
  private readonly kept = new Map<string, HTMLImageElement>();
  private readonly waiting: string[] = [];
  private loading = 0;

  constructor(private readonly arrived: () => void) {}

  /** Draw the picture of a row in a square; return false if it is not there yet. */
  draw(context: CanvasRenderingContext2D, layout: Layout, row: number, x: number, y: number, side: number): boolean {
    const place = layout.places[row];
    const size = side > 40 ? 64 : 32;
    const image = this.sprite(`/api/layouts/${layout.name}/tiles/${place >> 6}?size=${size}`);
    if (!image?.complete || !image.naturalWidth) return false;
    const cell = place & 63;
    const [column, line] = [cell % SIDE, Math.floor(cell / SIDE)];
    context.drawImage(image, column * size, line * size, size, size, x, y, side, side);
    return true;
  }

  /** Forget what was asked for and is no longer in view. */
  startView(): void {
    this.waiting.length = 0;
  }

  private sprite(url: string): HTMLImageElement | undefined {
    const found = this.kept.get(url);
    if (found) {
      this.kept.delete(url);
      this.kept.set(url, found); // the most recent last
      return found;
    }
    if (!this.waiting.includes(url)) this.waiting.push(url);
    this.pump();
    return undefined;
  }

  private pump(): void {
    while (this.loading < AT_ONCE && this.waiting.length) {
      const url = this.waiting.shift() as string;
      const image = new Image();
      this.loading++;
      image.onload = image.onerror = () => {
        this.loading--;
        this.arrived();
        this.pump();
      };
      image.src = url;
      this.kept.set(url, image);
      for (const oldest of this.kept.keys()) {
        if (this.kept.size <= MOST) break;
        this.kept.delete(oldest);
      }
    }
  }
}

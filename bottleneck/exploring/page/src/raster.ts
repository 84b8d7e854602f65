// Points into pixels by hand: 100,000 of them in a few milliseconds, without WebGL.

import type { Viewport } from "./viewport";
import { blend } from "./palette";

const SMOOTH = 30_000; // points; more are drawn without smooth edges

export class Raster {
  private image: ImageData | null = null;
  private pixels = new Uint32Array(0);

  /**
   * Draw points on a canvas that is as large as the viewport times the density.
   *
   * Colours are packed; 0 is not drawn. `front`, if any, are rows drawn again on top, larger, in an ink ring.
   */
  draw(
    canvas: HTMLCanvasElement,
    view: Viewport,
    density: number,
    points: { x: Float32Array; y: Float32Array; colours: Uint32Array },
    style: { radius: number; ground: number; ink: number; front: Iterable<number> },
  ): void {
    const context = canvas.getContext("2d", { alpha: false });
    const { width, height } = canvas;
    if (!context || !width || !height) return;
    if (!this.image || this.image.width !== width || this.image.height !== height) {
      this.image = context.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.pixels.fill(style.ground);
    const count = points.x.length;
    const disc = new Disc(style.radius * density, width, count <= SMOOTH);
    const [scale, left, top] = transform(view, density);
    for (let row = 0; row < count; row++) {
      const colour = points.colours[row];
      if (colour) disc.stamp(this.pixels, width, height, points.x[row] * scale + left, points.y[row] * scale + top, colour);
    }
    const ring = new Disc((style.radius + 2.5) * density, width, true);
    const inner = new Disc((style.radius + 1) * density, width, true);
    for (const row of style.front) {
      const [x, y] = [points.x[row] * scale + left, points.y[row] * scale + top];
      if (!points.colours[row]) continue;
      ring.stamp(this.pixels, width, height, x, y, style.ink);
      inner.stamp(this.pixels, width, height, x, y, points.colours[row]);
    }
    context.putImageData(this.image, 0, 0);
  }
}

export function transform(view: Viewport, density: number): [number, number, number] {
  const scale = view.scale * density;
  return [scale, (view.width / 2) * density - view.x * scale, (view.height / 2) * density - view.y * scale];
}

/** A disc as offsets of pixels that it covers, and of those that it covers in part. */
class Disc {
  private readonly whole: Int32Array;
  private readonly edges: { offset: number; share: number }[] = [];
  private readonly reach: number;

  constructor(radius: number, width: number, smooth: boolean) {
    const whole: number[] = [];
    this.reach = Math.ceil(radius);
    for (let dy = -this.reach; dy <= this.reach; dy++) {
      for (let dx = -this.reach; dx <= this.reach; dx++) {
        const cover = radius + 0.5 - Math.hypot(dx, dy);
        if (cover >= 1 || (!smooth && cover >= 0.5)) whole.push(dy * width + dx);
        else if (smooth && cover > 0) this.edges.push({ offset: dy * width + dx, share: cover });
      }
    }
    this.whole = Int32Array.from(whole.length ? whole : [0]);
  }

  stamp(pixels: Uint32Array, width: number, height: number, x: number, y: number, colour: number): void {
    const [column, line] = [Math.round(x), Math.round(y)];
    const reach = this.reach;
    if (column < reach || line < reach || column >= width - reach || line >= height - reach) return;
    const at = line * width + column;
    for (let place = 0; place < this.whole.length; place++) pixels[at + this.whole[place]] = colour;
    for (const { offset, share } of this.edges) pixels[at + offset] = blend(pixels[at + offset], colour, share);
  }
}

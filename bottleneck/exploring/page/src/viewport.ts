// The part of the map that is seen: places from 0 to 1 to pixels and back.

const LEAST = 0.5;
const MOST = 4000;
const MARGIN = 0.05; // of the window, around the whole map

export class Viewport {
  width = 1;
  height = 1;
  zoom = 1; // 1 shows all
  x = 0.5; // place in the middle of the window
  y = 0.5;
  private middle: [number, number] = [0.5, 0.5];
  private span: [number, number] = [1, 1];

  /** Pixels for a unit of the map. */
  get scale(): number {
    return Math.min(this.width / this.span[0], this.height / this.span[1]) * (1 - 2 * MARGIN) * this.zoom;
  }

  /** Take the places that must be seen when all are shown. */
  setBounds(x: Float32Array, y: Float32Array): void {
    const [[left, right], [top, bottom]] = [bounds(x), bounds(y)];
    this.middle = [(left + right) / 2, (top + bottom) / 2];
    this.span = [Math.max(right - left, 0.01), Math.max(bottom - top, 0.01)];
  }

  toPixelX = (x: number): number => (x - this.x) * this.scale + this.width / 2;
  toPixelY = (y: number): number => (y - this.y) * this.scale + this.height / 2;
  toPlaceX = (pixel: number): number => (pixel - this.width / 2) / this.scale + this.x;
  toPlaceY = (pixel: number): number => (pixel - this.height / 2) / this.scale + this.y;

  fit(): void {
    [this.zoom, this.x, this.y] = [1, ...this.middle];
  }

  pan(pixelsX: number, pixelsY: number): void {
    this.x = clamp(this.x - pixelsX / this.scale, -0.5, 1.5);
    this.y = clamp(this.y - pixelsY / this.scale, -0.5, 1.5);
  }

  /** Zoom by a factor, and keep the place below a pixel there. */
  zoomAt(factor: number, pixelX: number, pixelY: number): void {
    const [x, y] = [this.toPlaceX(pixelX), this.toPlaceY(pixelY)];
    this.zoom = clamp(this.zoom * factor, LEAST, MOST);
    this.x += x - this.toPlaceX(pixelX);
    this.y += y - this.toPlaceY(pixelY);
  }

  /** Show a place in the middle, and at least so close. */
  goTo(x: number, y: number, zoom = this.zoom): void {
    [this.x, this.y, this.zoom] = [x, y, Math.max(this.zoom, zoom)];
  }
}

export function bounds(values: Float32Array): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);

// The part of the map that is seen: places from 0 to 1 to pixels and back.

const LEAST = 0.5;
const MOST = 4000;
const MARGIN = 0.04; // of the window, around the whole map

export class Viewport {
  width = 1;
  height = 1;
  zoom = 1; // 1 shows all
  x = 0.5; // place in the middle of the window
  y = 0.5;

  /** Pixels for a unit of the map. */
  get scale(): number {
    return Math.min(this.width, this.height) * (1 - 2 * MARGIN) * this.zoom;
  }

  toPixelX = (x: number): number => (x - this.x) * this.scale + this.width / 2;
  toPixelY = (y: number): number => (y - this.y) * this.scale + this.height / 2;
  toPlaceX = (pixel: number): number => (pixel - this.width / 2) / this.scale + this.x;
  toPlaceY = (pixel: number): number => (pixel - this.height / 2) / this.scale + this.y;

  fit(): void {
    [this.zoom, this.x, this.y] = [1, 0.5, 0.5];
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

const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);

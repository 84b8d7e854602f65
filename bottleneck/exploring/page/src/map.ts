// The map: a canvas of points, and one above it for thumbnails, the lasso and the picture below the pointer.

import { colours } from "./colouring";
import { byId, counted } from "./dom";
import { rowsInside, type Point } from "./lasso";
import { packed, type Theme } from "./palette";
import { Raster } from "./raster";
import { store } from "./store";
import { Tiles } from "./tiles";
import { Viewport } from "./viewport";

const MOST_PICTURES = 400; // thumbnails at once
const LEAST_SIDE = 18; // pixels of a thumbnail
const MOST_SIDE = 96;
const NEAR = 10; // pixels from a point that still hit it
const MOVE_SECONDS = 0.5; // of points from one layout to the next
const MOST_MOVED = 200_000; // points that move smoothly

export class ImageMap {
  readonly view = new Viewport();
  pictures = true;
  lassoing = false;
  /** Called with a row that was clicked, null for the ground, and whether it is added to the selection. */
  onPick: (row: number | null, adding: boolean) => void = () => {};
  onLasso: (rows: number[], adding: boolean) => void = () => {};

  private readonly points = byId<HTMLCanvasElement>("points");
  private readonly above = byId<HTMLCanvasElement>("above");
  private readonly raster = new Raster();
  private readonly tiles = new Tiles(() => this.redraw(false));
  private x: Float32Array = new Float32Array(0);
  private y: Float32Array = new Float32Array(0);
  private colours: Uint32Array = new Uint32Array(0);
  private line: Point[] = [];
  private hovered = -1;
  private found: Point | null = null;
  private scheduled = 0;
  private stalePoints = true;
  private theme: Theme = "light";
  private ground = 0;
  private ink = "#000000";
  private density = 1;
  private describing = 0;
  private seen: number[] = []; // rows that are shown as pictures
  private pictureSide = 0;

  constructor() {
    new ResizeObserver(() => this.resize()).observe(this.above);
    store.on("layout", () => this.take());
    for (const change of ["columns", "colouring", "selection"] as const) store.on(change, () => this.recolour());
  }

  setTheme(theme: Theme): void {
    const style = getComputedStyle(document.documentElement);
    this.theme = theme;
    this.ground = packed(style.getPropertyValue("--page").trim());
    this.ink = style.getPropertyValue("--ink").trim();
    this.recolour();
  }

  /** Draw again in the next frame; without `points`, only what is above them. */
  redraw(points = true): void {
    this.stalePoints ||= points;
    this.scheduled ||= requestAnimationFrame(() => {
      this.scheduled = 0;
      this.draw();
    });
  }

  /** Return the row of the point nearest to a pixel, or -1. */
  rowAt(pixelX: number, pixelY: number): number {
    const [x, y] = [this.view.toPlaceX(pixelX), this.view.toPlaceY(pixelY)];
    const near = Math.max(NEAR, this.radius() + 3, 0.7 * this.side()) / this.view.scale;
    let [best, least] = [-1, near * near];
    for (let row = 0; row < this.x.length; row++) {
      if (!this.colours[row]) continue;
      const distance = (this.x[row] - x) ** 2 + (this.y[row] - y) ** 2;
      if (distance < least) [best, least] = [row, distance];
    }
    return best;
  }

  /** Return the rows that pass the filters and lie in the window. */
  visible(most = Infinity): number[] {
    const [left, right] = [this.view.toPlaceX(0), this.view.toPlaceX(this.view.width)];
    const [top, bottom] = [this.view.toPlaceY(0), this.view.toPlaceY(this.view.height)];
    const found: number[] = [];
    for (let row = 0; row < this.x.length; row++) {
      const inside = this.x[row] >= left && this.x[row] <= right && this.y[row] >= top && this.y[row] <= bottom;
      if (inside && this.colours[row] && found.push(row) > most) break;
    }
    return found;
  }

  startLine(x: number, y: number): void {
    this.line = [[x, y]];
  }

  extendLine(x: number, y: number): void {
    this.line.push([x, y]);
    this.redraw(false);
  }

  endLine(adding: boolean): void {
    const polygon = this.line.map(([x, y]): Point => [this.view.toPlaceX(x), this.view.toPlaceY(y)]);
    this.line = [];
    this.redraw(false);
    this.onLasso(rowsInside(polygon, this.x, this.y, this.colours), adding);
  }

  get isDrawing(): boolean {
    return this.line.length > 0;
  }

  hover(row: number): void {
    if (row === this.hovered) return;
    this.hovered = row;
    this.redraw(false);
  }

  /** Show a row in the middle; come closer if many others are in view. */
  showRow(row: number): void {
    const [x, y] = [this.x[row], this.y[row]];
    const [pixelX, pixelY] = [this.view.toPixelX(x), this.view.toPixelY(y)];
    const margin = 40;
    const inView =
      pixelX > margin && pixelY > margin && pixelX < this.view.width - margin && pixelY < this.view.height - margin;
    if (!inView) this.view.goTo(x, y);
    this.redraw();
  }

  /** Mark the place of a picture that was searched by. */
  mark(place: Point | null): void {
    this.found = place;
    if (place) this.view.goTo(...place);
    this.redraw();
  }

  private resize(): void {
    const { clientWidth, clientHeight } = this.above;
    this.density = Math.min(window.devicePixelRatio || 1, 2);
    [this.view.width, this.view.height] = [clientWidth, clientHeight];
    for (const canvas of [this.points, this.above]) {
      canvas.width = Math.round(clientWidth * this.density);
      canvas.height = Math.round(clientHeight * this.density);
    }
    this.redraw();
  }

  private take(): void {
    const layout = store.layout;
    if (!layout) return;
    this.view.setBounds(layout.x, layout.y);
    this.view.fit();
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (this.x.length !== layout.x.length || still || layout.x.length > MOST_MOVED) {
      [this.x, this.y] = [layout.x, layout.y];
      this.recolour();
      return;
    }
    this.move(this.x, this.y, layout.x, layout.y);
  }

  private move(fromX: Float32Array, fromY: Float32Array, toX: Float32Array, toY: Float32Array): void {
    const began = performance.now();
    const [x, y]: Float32Array[] = [new Float32Array(toX.length), new Float32Array(toY.length)];
    [this.x, this.y] = [x, y];
    const step = (now: number) => {
      const part = Math.min((now - began) / 1000 / MOVE_SECONDS, 1);
      if (this.x !== x) return; // another layout was chosen meanwhile
      const share = part * part * (3 - 2 * part);
      for (let row = 0; row < x.length; row++) {
        x[row] = fromX[row] + (toX[row] - fromX[row]) * share;
        y[row] = fromY[row] + (toY[row] - fromY[row]) * share;
      }
      if (part === 1) [this.x, this.y] = [toX, toY];
      else requestAnimationFrame(step);
      this.redraw();
    };
    requestAnimationFrame(step);
  }

  private recolour(): void {
    if (store.state) this.colours = colours(this.theme, this.ground);
    this.redraw();
  }

  /** Pixels; larger when few points are there, and when they are seen closely. */
  private radius(): number {
    const count = this.x.length;
    const base = count <= 2000 ? 4 : count <= 20_000 ? 2.5 : count <= 200_000 ? 1.4 : 0.6;
    return Math.min(base * this.view.zoom ** 0.3, 9);
  }

  /** Pixels of the side of a thumbnail; 0 if none are shown. */
  private side(): number {
    return this.seen.length ? this.pictureSide : 0;
  }
  private draw(): void {
    if (!store.state || !this.x.length) return;
    this.choosePictures();
    if (this.stalePoints) {
      const front = store.selection.length <= 5000 ? store.selection : [];
      const style = { radius: this.radius(), ground: this.ground, ink: packed(this.ink), front };
      this.raster.draw(this.points, this.view, this.density, { x: this.x, y: this.y, colours: this.colours }, style);
      this.stalePoints = false;
    }
    this.drawAbove();
    clearTimeout(this.describing);
    this.describing = window.setTimeout(() => this.describe(), 300);
  }

  private describe(): void {
    const text = `Map of ${counted(store.state.n, "image")}, ${counted(this.visible().length, "image")} in view. `;
    this.above.setAttribute("aria-label", `${text}Arrows pan, plus and minus zoom, A selects what is in view.`);
  }

  private choosePictures(): void {
    const seen = this.pictures ? this.visible(MOST_PICTURES) : [];
    const { width, height } = this.view;
    const side = Math.min(0.62 * Math.sqrt((width * height) / Math.max(seen.length, 1)), MOST_SIDE);
    const enough = seen.length > 0 && seen.length <= MOST_PICTURES && side >= LEAST_SIDE;
    [this.seen, this.pictureSide] = enough ? [seen, side] : [[], 0];
  }

  private drawAbove(): void {
    const context = this.above.getContext("2d");
    if (!context) return;
    context.setTransform(this.density, 0, 0, this.density, 0, 0);
    context.clearRect(0, 0, this.view.width, this.view.height);
    this.drawPictures(context);
    if (this.found) this.drawCross(context, this.view.toPixelX(this.found[0]), this.view.toPixelY(this.found[1]));
    if (this.hovered >= 0 && this.hovered < this.x.length) this.drawHovered(context);
    if (this.line.length > 1) this.drawLine(context);
  }

  private drawPictures(context: CanvasRenderingContext2D): void {
    const layout = store.layout;
    if (!layout) return;
    const selected = new Set(store.selection);
    this.tiles.startView();
    const side = this.pictureSide;
    for (const row of this.seen) {
      const [x, y] = [this.view.toPixelX(this.x[row]) - side / 2, this.view.toPixelY(this.y[row]) - side / 2];
      context.globalAlpha = selected.size > 1 && !selected.has(row) ? 0.35 : 1;
      if (!this.tiles.draw(context, layout, row, x, y, side)) continue;
      context.lineWidth = selected.has(row) ? 3 : 2;
      context.strokeStyle = css(this.colours[row]);
      context.strokeRect(x, y, side, side);
      if (!selected.has(row)) continue;
      context.lineWidth = 1.5;
      context.strokeStyle = this.ink;
      context.strokeRect(x - 2.5, y - 2.5, side + 5, side + 5);
    }
    context.globalAlpha = 1;
  }

  private drawHovered(context: CanvasRenderingContext2D): void {
    const [x, y] = [this.view.toPixelX(this.x[this.hovered]), this.view.toPixelY(this.y[this.hovered])];
    context.strokeStyle = this.ink;
    context.lineWidth = 2;
    context.beginPath();
    const side = this.side();
    if (side) context.rect(x - side / 2 - 1, y - side / 2 - 1, side + 2, side + 2);
    else context.arc(x, y, this.radius() + 3, 0, 2 * Math.PI);
    context.stroke();
  }

  private drawCross(context: CanvasRenderingContext2D, x: number, y: number): void {
    context.strokeStyle = this.ink;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, y, 14, 0, 2 * Math.PI);
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 9 * dx, y + 9 * dy);
      context.lineTo(x + 20 * dx, y + 20 * dy);
    }
    context.stroke();
  }

  private drawLine(context: CanvasRenderingContext2D): void {
    context.beginPath();
    for (const [x, y] of this.line) context.lineTo(x, y);
    context.closePath();
    context.fillStyle = this.ink;
    context.globalAlpha = 0.08;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = this.ink;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.stroke();
    context.setLineDash([]);
  }
}

const css = (colour: number): string => `rgb(${colour & 0xff} ${(colour >> 8) & 0xff} ${(colour >> 16) & 0xff})`;

// Points inside of a line that is drawn by hand.

export type Point = [number, number];

/** Return the rows inside of a polygon of places, by the even-odd rule. */
export function rowsInside(polygon: Point[], x: Float32Array, y: Float32Array, shown: Uint32Array): number[] {
  if (polygon.length < 3) return [];
  const [xs, ys] = [polygon.map((point) => point[0]), polygon.map((point) => point[1])];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const found: number[] = [];
  for (let row = 0; row < x.length; row++) {
    if (!shown[row] || x[row] < left || x[row] > right || y[row] < top || y[row] > bottom) continue;
    if (isInside(polygon, x[row], y[row])) found.push(row);
  }
  return found;
}

function isInside(polygon: Point[], x: number, y: number): boolean {
  let inside = false;
  for (let at = 0, before = polygon.length - 1; at < polygon.length; before = at++) {
    const [x1, y1] = polygon[at];
    const [x2, y2] = polygon[before];
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}

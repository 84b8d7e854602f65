// Colours of points as 0xAABBGGRR, what a Uint32Array over ImageData holds; and the same for the legend.

export type Theme = "light" | "dark";

// Okabe and Ito's colours and further hues, ordered so that neighbours differ in lightness too.
const LIGHT = [
  "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7a3e9d", "#8c564b", "#3d7a1f", "#c2185b",
  "#1f4e5f", "#a0a000", "#5c6bc0", "#ef7f4d", "#00838f", "#9e9d24", "#ad1457", "#546e7a", "#6d4c41", "#7cb342",
];
const DARK = [
  "#4ba3dd", "#ff8f45", "#2fc79a", "#e79fc6", "#e6c34a", "#8fd0f5", "#b98be0", "#c99a8d", "#8ccf63", "#ff7aa8",
  "#79b4c7", "#d4d456", "#9fa8ff", "#ffb08a", "#4dd0d9", "#d9d86a", "#f06a9b", "#9db4bf", "#bf9c8f", "#b6e07c",
];
// From viridis, five stops; readable in grey and for colour-blind readers.
const RAMP = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
const NONE = { light: "#b9bec4", dark: "#59616a" };
const MEANING: Record<string, { light: string; dark: string }> = {
  right: { light: "#6f9fc4", dark: "#4c7896" },
  wrong: { light: "#d02c0c", dark: "#ff7b5c" },
  kept: { light: "#6f9fc4", dark: "#4c7896" },
  excluded: { light: "#d02c0c", dark: "#ff7b5c" },
  original: { light: "#9fb4c4", dark: "#4c6272" },
  edited: { light: "#d55e00", dark: "#ff8f45" },
};
const FIXED = new Set(["error", "excluded", "edited"]);

export function categoryColour(column: string, values: string[], index: number, theme: Theme): string {
  if (index < 0 || index >= values.length) return NONE[theme];
  if (FIXED.has(column)) return MEANING[values[index]]?.[theme] ?? NONE[theme];
  const colours = theme === "light" ? LIGHT : DARK;
  if (index < colours.length) return colours[index];
  const hue = (index * 137.508) % 360; // the golden angle
  return hsl(hue, theme === "light" ? 0.55 : 0.6, theme === "light" ? 0.3 + 0.06 * (index % 4) : 0.6 + 0.05 * (index % 4));
}

export const noneColour = (theme: Theme): string => NONE[theme];

/** Return the colour of a share from 0 to 1. */
export function rampColour(share: number): string {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const index = Math.min(Math.floor(place), RAMP.length - 2);
  return mix(RAMP[index], RAMP[index + 1], place - index);
}

export const rampStops = (): string => RAMP.join(", ");

/** Return a colour #rrggbb as 0xAABBGGRR. */
export function packed(colour: string): number {
  const value = parseInt(colour.slice(1), 16);
  return (0xff000000 | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

/** Return a share of the second of two packed colours mixed into the first. */
export function blend(one: number, other: number, share: number): number {
  const at = (shift: number) => {
    const [a, b] = [(one >>> shift) & 0xff, (other >>> shift) & 0xff];
    return Math.round(a + (b - a) * share) << shift;
  };
  return (0xff000000 | at(0) | at(8) | at(16)) >>> 0;
}

function mix(one: string, other: string, share: number): string {
  const colour = blend(packed(one), packed(other), share);
  return hex(colour & 0xff, (colour >> 8) & 0xff, (colour >> 16) & 0xff);
}

const hex = (...parts: number[]): string => `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;

function hsl(hue: number, saturation: number, lightness: number): string {
  const chroma = saturation * Math.min(lightness, 1 - lightness);
  const part = (n: number) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return hex(part(0), part(8), part(4));
}

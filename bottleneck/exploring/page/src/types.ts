// What the server answers; see ../../app.py.

export type Progress = { state: "idle" | "running" | "ready" | "failed"; progress: number | null; error: string | null };

export type LayoutState = Progress & { name: string; title: string };

type Named = { name: string; title: string; revision: number };

export type CategoryInfo = Named & { kind: "category"; values: string[] };

export type NumberInfo = Named & { kind: "number" };

export type ColumnInfo = CategoryInfo | NumberInfo;

export type Model = {
  accuracy: number | null;
  accuracy_ci95: [number, number] | null;
  text: string;
  refitted: boolean;
  cross_validated: boolean;
};

export type State = {
  title: string;
  n: number;
  revision: number;
  classes: string[];
  columns: ColumnInfo[];
  layouts: LayoutState[];
  tasks: Record<"audit" | "refit" | "suggestions", Progress>;
  edits: { file: string; count: number; can_undo: boolean; can_redo: boolean; problem: string | null };
  model: Model | null;
  unfamiliar_at: number;
};

export type Neighbour = { row: number; cosine: number; label: string | null };

export type Card = {
  row: number;
  digest: string;
  path: string;
  label: string | null;
  original_label: string | null;
  split: string | null;
  group: string | null;
  width: number | null;
  height: number | null;
  bytes: number | null;
  problem: string | null;
  prediction: string | null;
  probabilities: [string, number][];
  familiarity: number | null;
  cluster: string | null;
  tags: string[];
  excluded: boolean;
  findings: { kind: string; text: string; suggested: string | null }[];
  neighbours: Neighbour[];
};

export type SearchResult = {
  neighbours: Neighbour[];
  prediction: string | null;
  probabilities: [string, number][];
  familiarity: number | null;
  x: number | null;
  y: number | null;
};

export type Finding = {
  kind: string;
  row: number;
  other: number | null;
  suggested: string | null;
  score: number;
  text: string;
};

export type Findings = Progress & {
  findings: Finding[];
  kinds: { kind: string; title: string; count: number }[];
  remarks: string[];
};

export type Suggestions = Progress & { suggestions: { row: number; text: string }[]; text: string | null };

export type Action = "label" | "exclude" | "include" | "tag" | "untag";

export type Changed = { revision: number; changed: number[]; text?: string };

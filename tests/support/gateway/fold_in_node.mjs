// Folds runs of events with the page's own view: JSON of runs on stdin, their messages on stdout.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { ChatView } = await import(pathToFileURL(process.argv[2]));
const runs = JSON.parse(readFileSync(0, "utf8"));
const folded = runs.map((events) => {
  const view = new ChatView();
  for (const event of events) view.apply(event);
  for (const name in {}) throw new Error(`every object has ${name} now`);
  return view.messages;
});
process.stdout.write(JSON.stringify(folded));

// The loop of a driver's program, as in ../python/program.py: a scenario and a URL in, its result out, line by line.
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

console.log = console.error; // some drivers print; what goes to stdout here is answers

export function versionOf(name) {
  return JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url))).version;
}

export async function serve(scenarios) {
  for await (const line of createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    let answer;
    try {
      answer = { result: await scenarios[asked.scenario](asked.url) };
    } catch (error) {
      answer = { failure: `${error?.stack ?? error}` };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  process.exit(0);
}

export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// What is not there within so many seconds is a failure: a driver may wait for ever for a connection of its own.
export const within = (seconds, promise) => {
  const late = () => Promise.reject(new Error(`nothing within ${seconds} s`));
  return Promise.race([promise, sleep(1000 * seconds).then(late)]);
};

export const numbers = (count, from = 0) => Array.from({ length: count }, (_, i) => i + from);

// One after the other: [await work(0), await work(1), ...]
export async function inTurn(values, work) {
  const found = [];
  for (const value of values) found.push(await work(value));
  return found;
}

// How an error looks to the program, by whatever `codeOf` finds in it. The code is null where there was none.
export async function refusal(work, codeOf = (error) => error.code) {
  try {
    await work();
    return { code: null };
  } catch (error) {
    return { code: codeOf(error) ?? "", message: error.message, type: error.constructor.name };
  }
}

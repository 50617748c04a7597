// Workers that want a connection of Knex's pool from a class that refuses: the pool tries again every 200 ms.
// Arguments: URL, workers. One line of JSON out: how many got their answer, and after how many milliseconds the last.
import makeKnex from "knex";

const [url, workers] = [process.argv[2], Number(process.argv[3])];
const knex = makeKnex({
  client: "pg",
  connection: url,
  acquireConnectionTimeout: 30000,
  pool: { min: 0, max: workers, propagateCreateError: false, createRetryIntervalMillis: 200 },
});
const began = Date.now();
const work = async () => {
  await knex.raw("SELECT 1");
  return Date.now() - began;
};
const ends = await Promise.allSettled(Array.from({ length: workers }, work));
const served = ends.filter((one) => one.status === "fulfilled").map((one) => one.value);
console.log(JSON.stringify({ served: served.length, last: Math.max(...served) }));
await knex.destroy();

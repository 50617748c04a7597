// postgres.js: its pool is the client; it prepares every statement by a name, and pipelines.
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import postgres from "postgres";
import { inTurn, numbers, refusal, serve, sleep, versionOf, within } from "./program.mjs";

// The driver asks each new connection for the array types, and handles no error of that: it is an unhandled rejection,
// which ends a program that does not expect any, and a begin() that waits for this connection waits for ever.
process.on("unhandledRejection", (error) => console.error(`unhandled: ${error.message}`));

const TABLE = "scenario_postgres_js";

const withPool = async (url, max, work) => {
  const sql = postgres(url, { max, onnotice: () => {} });
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
};

const value = async (query) => Object.values((await query)[0])[0];
const codeOf = (query) => query.then(() => null, (error) => error.code);

// Somebody who keeps a server connection until `free` is called.
const holding = (sql) =>
  new Promise((held, failed) => {
    let free;
    const until = new Promise((done) => (free = done));
    const over = sql.begin(async (own) => {
      await own`SELECT 1`;
      held(async () => {
        free();
        await over;
      });
      await until;
    });
    over.catch(failed);
  });

const afterRefusals = (url, ask) =>
  withPool(url, 1, async (sql) => {
    const codes = [];
    await sql`SELECT 1`; // it knows the array types
    await withPool(url, 1, async (others) => {
      const free = await holding(others);
      for (let i = 0; i < 2; i++) codes.push((await within(2, refusal(() => ask(sql)))).code);
      await free();
    });
    const after = await within(2, inTurn(numbers(5), (i) => value(sql`SELECT ${i}::int`)));
    return { refused: codes.every((code) => code !== null), after };
  });

serve({
  version: () => ({ driver: versionOf("postgres") }),

  connect_by_url: (url) =>
    withPool(url, 1, async (sql) => {
      const [row] = await sql`SELECT current_setting('application_name') AS application_name,
        current_database() AS database, current_user AS user, ${42}::int AS answer`;
      return { ...row };
    }),

  pool: (url) =>
    withPool(url, 5, async (sql) => ({
      rows: await Promise.all(numbers(40).map((i) => value(sql`SELECT ${i}::int * 2`))),
    })),

  crowd: (url) =>
    withPool(url, 8, async (sql) => {
      const clients = await Promise.all(numbers(8).map(() => sql.reserve()));
      const turn = async (client, i) => {
        await client`BEGIN`;
        const found = await value(client`SELECT ${i}::int`);
        await client`COMMIT`;
        return found;
      };
      const rows = await Promise.all(clients.map((client, c) => inTurn(numbers(5, 100 * c), (i) => turn(client, i))));
      for (const client of clients) client.release();
      return { rows };
    }),

  prepared_statements: (url) =>
    withPool(url, 1, (one) =>
      withPool(url, 1, async (two) => {
        const plus = (i) => value(one`SELECT ${i}::int + 1`);
        const first = await inTurn(numbers(8), plus);
        const second = await two.begin(async (other) => {
          const found = await inTurn(numbers(8), (i) => value(other`SELECT 'x' || ${`${i}`}::text`));
          first.push(...(await Promise.all(numbers(3, 8).map(plus))));
          return found;
        });
        return { one: first, other: second };
      }),
    ),

  transactions: (url) =>
    withPool(url, 2, async (sql) => {
      await sql.unsafe(`DROP TABLE IF EXISTS ${TABLE}; CREATE TABLE ${TABLE} (a int)`);
      const insert = (own, i) => own`INSERT INTO ${own(TABLE)} VALUES (${i})`;
      const undone = (begin) => begin.catch((error) => (error === "undo" ? null : Promise.reject(error)));
      await sql.begin((own) => insert(own, 1));
      await undone(sql.begin(async (own) => { await insert(own, 2); throw "undo"; }));
      await sql.begin(async (own) => {
        await insert(own, 3);
        await undone(own.savepoint(async (inner) => { await insert(inner, 4); throw "undo"; }));
      });
      const rows = await sql`SELECT a FROM ${sql(TABLE)} ORDER BY a`;
      await sql`DROP TABLE ${sql(TABLE)}`;
      return { rows: rows.map((row) => row.a) };
    }),

  copy_in: (url) =>
    withPool(url, 1, async (sql) => {
      await sql.unsafe(`DROP TABLE IF EXISTS ${TABLE}; CREATE TABLE ${TABLE} (a int, b text)`);
      const lines = Readable.from(numbers(1000, 1).map((i) => `${i}\trow ${i}\n`));
      await pipeline(lines, await sql`COPY ${sql(TABLE)} FROM STDIN`.writable());
      const [row] = await sql`SELECT count(*)::int AS count, sum(a)::int AS sum FROM ${sql(TABLE)}`;
      await sql`DROP TABLE ${sql(TABLE)}`;
      return { ...row };
    }),

  copy_out: (url) =>
    withPool(url, 1, async (sql) => {
      const query = sql`COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT CSV`;
      let text = "";
      for await (const part of await query.readable()) text += part;
      const lines = text.trim().split("\n");
      return { count: lines.length, last: lines.at(-1) };
    }),

  listen: (url) =>
    withPool(url, 2, async (sql) => {
      const heard = [];
      const listening = await sql.listen("scenario_postgres_js", (payload) => heard.push(payload));
      for (const payload of ["one", "two"]) await sql.notify("scenario_postgres_js", payload);
      for (let i = 0; i < 150 && heard.length < 2; i++) await sleep(20);
      await listening.unlisten();
      return { heard };
    }),

  cancel: (url) =>
    withPool(url, 1, async (sql) => {
      const query = sql`SELECT pg_sleep(30)`;
      const ended = codeOf(query.execute());
      await sleep(100);
      query.cancel();
      return { code: await ended, after: await value(sql`SELECT 1`) };
    }),

  errors: (url) =>
    withPool(url, 1, async (sql) => {
      await sql.unsafe(`DROP TABLE IF EXISTS ${TABLE}; CREATE TABLE ${TABLE} (a int PRIMARY KEY)`);
      const unique = await codeOf(sql`INSERT INTO ${sql(TABLE)} VALUES (1), (1)`);
      const syntax = await codeOf(sql`SELEC 1`);
      await sql`DROP TABLE ${sql(TABLE)}`;
      const own = await sql.reserve();
      await own`BEGIN`;
      await codeOf(own`SELECT 1/0`);
      const aborted = await codeOf(own`SELECT 1`);
      await own`ROLLBACK`;
      own.release();
      return { unique, syntax, aborted, after: await value(sql`SELECT 1`) };
    }),

  refusal_while_full: (url) =>
    withPool(url, 1, (others) =>
      withPool(url, 1, async (sql) => {
        const free = await holding(others);
        try {
          return await refusal(() => value(sql`SELECT 1`));
        } finally {
          await free();
        }
      }),
    ),

  recovery: (url) => afterRefusals(url, (sql) => value(sql`SELECT 1`)),
  refused_begin: (url) => afterRefusals(url, (sql) => sql.begin((own) => own`SELECT 1`)),
});

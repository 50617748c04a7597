// node-postgres: its pool, statements prepared by a name the program gives, COPY by pg-copy-streams.
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import { inTurn, numbers, refusal, serve, sleep, versionOf } from "./program.mjs";

const TABLE = "scenario_pg";

const poolAt = (url, max) => {
  const pool = new pg.Pool({ connectionString: url, max });
  pool.on("error", () => {}); // of idle clients; a program without this ends
  return pool;
};

const connected = async (url, work) => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
};

const value = async (client, text, values) => Object.values((await client.query(text, values)).rows[0])[0];
const codeOf = (client, text) => client.query(text).then(() => null, (error) => error.code);

async function prepared(url) {
  return connected(url, (one) =>
    connected(url, async (other) => {
      const plus = (i) => value(one, { name: "same name", text: "SELECT $1::int + 1 AS v", values: [i] });
      const word = (i) => value(other, { name: "same name", text: "SELECT 'x' || $1::text AS v", values: [`${i}`] });
      const first = await inTurn(numbers(8), plus);
      await other.query("BEGIN");
      const second = await inTurn(numbers(8), word);
      first.push(...(await inTurn(numbers(3, 8), plus)));
      await other.query("COMMIT");
      return { one: first, other: second };
    }),
  );
}

async function afterRefusals(url, ask) {
  const pool = poolAt(url, 1);
  const codes = [];
  await connected(url, async (holder) => {
    await holder.query("BEGIN");
    for (let i = 0; i < 2; i++) codes.push((await refusal(() => ask(pool))).code);
    await holder.query("ROLLBACK");
  });
  const after = await inTurn(numbers(5), (i) => value(pool, "SELECT $1::int", [i]));
  await pool.end();
  return { refused: codes.every((code) => code !== null), after };
}

serve({
  version: () => ({ driver: versionOf("pg") }),

  connect_by_url: (url) =>
    connected(url, async (client) => {
      const query = `SELECT current_setting('application_name') AS application_name, current_database() AS database,
                     current_user AS user, 42 AS answer`;
      return (await client.query(query)).rows[0];
    }),

  pool: async (url) => {
    const pool = poolAt(url, 5);
    const rows = await Promise.all(numbers(40).map((i) => value(pool, "SELECT $1::int * 2", [i])));
    await pool.end();
    return { rows };
  },

  crowd: async (url) => {
    const pool = poolAt(url, 8);
    const clients = await Promise.all(numbers(8).map(() => pool.connect()));
    const turn = async (client, i) => {
      await client.query("BEGIN");
      const found = await value(client, { name: "turn", text: "SELECT $1::int AS v", values: [i] });
      await client.query("COMMIT");
      return found;
    };
    const rows = await Promise.all(clients.map((client, c) => inTurn(numbers(5, 100 * c), (i) => turn(client, i))));
    for (const client of clients) client.release();
    await pool.end();
    return { rows };
  },

  prepared_statements: prepared,

  transactions: (url) =>
    connected(url, async (client) => {
      await client.query(`DROP TABLE IF EXISTS ${TABLE}; CREATE TABLE ${TABLE} (a int)`);
      const insert = (i) => client.query(`INSERT INTO ${TABLE} VALUES ($1)`, [i]);
      const run = (...texts) => inTurn(texts, (text) => (typeof text === "number" ? insert(text) : client.query(text)));
      await run("BEGIN", 1, "COMMIT", "BEGIN", 2, "ROLLBACK");
      await run("BEGIN", 3, "SAVEPOINT here", 4, "ROLLBACK TO SAVEPOINT here", "COMMIT");
      const { rows } = await client.query(`SELECT a FROM ${TABLE} ORDER BY a`);
      await client.query(`DROP TABLE ${TABLE}`);
      return { rows: rows.map((row) => row.a) };
    }),

  copy_in: (url) =>
    connected(url, async (client) => {
      await client.query(`DROP TABLE IF EXISTS ${TABLE}; CREATE TABLE ${TABLE} (a int, b text)`);
      const lines = Readable.from(numbers(1000, 1).map((i) => `${i}\trow ${i}\n`));
      await pipeline(lines, client.query(copyFrom(`COPY ${TABLE} FROM STDIN`)));
      const { rows } = await client.query(`SELECT count(*)::int AS count, sum(a)::int AS sum FROM ${TABLE}`);
      await client.query(`DROP TABLE ${TABLE}`);
      return rows[0];
    }),

  copy_out: (url) =>
    connected(url, async (client) => {
      const query = "COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT CSV";
      let text = "";
      for await (const part of client.query(copyTo(query))) text += part;
      const lines = text.trim().split("\n");
      return { count: lines.length, last: lines.at(-1) };
    }),

  listen: (url) =>
    connected(url, (listener) =>
      connected(url, async (other) => {
        const heard = [];
        listener.on("notification", (told) => heard.push(told.payload));
        await listener.query("LISTEN scenario_pg");
        for (const payload of ["one", "two"]) await other.query("SELECT pg_notify('scenario_pg', $1)", [payload]);
        for (let i = 0; i < 150 && heard.length < 2; i++) await sleep(20);
        return { heard };
      }),
    ),

  cancel: (url) =>
    connected(url, async (client) => {
      const query = new pg.Query("SELECT pg_sleep(30)");
      const ended = new Promise((done) => query.on("end", () => done(null)).on("error", done));
      client.query(query);
      await sleep(100);
      new pg.Client({ connectionString: url }).cancel(client, query);
      return { code: (await ended)?.code ?? null, after: await value(client, "SELECT 1") };
    }),

  errors: (url) =>
    connected(url, async (client) => {
      await client.query(`DROP TABLE IF EXISTS ${TABLE}; CREATE TABLE ${TABLE} (a int PRIMARY KEY)`);
      const unique = await codeOf(client, `INSERT INTO ${TABLE} VALUES (1), (1)`);
      const syntax = await codeOf(client, "SELEC 1");
      await client.query(`DROP TABLE ${TABLE}`);
      await client.query("BEGIN");
      await codeOf(client, "SELECT 1/0");
      const aborted = await codeOf(client, "SELECT 1");
      await client.query("ROLLBACK");
      return { unique, syntax, aborted, after: await value(client, "SELECT 1") };
    }),

  refusal_while_full: (url) =>
    connected(url, async (holder) => {
      await holder.query("BEGIN");
      return refusal(() => connected(url, (client) => value(client, "SELECT 1")));
    }),

  recovery: (url) => afterRefusals(url, (pool) => pool.query("SELECT 1")),

  refused_begin: (url) =>
    afterRefusals(url, async (pool) => {
      const client = await pool.connect();
      try {
        await client.query("BEGIN");
        await client.query("SELECT 1");
        await client.query("COMMIT");
      } catch (error) {
        await client.query("ROLLBACK");
        throw error;
      } finally {
        client.release();
      }
    }),
});

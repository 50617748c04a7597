// Knex on node-postgres: its own pool and its own transactions; it prepares nothing by name.
import makeKnex from "knex";
import { inTurn, numbers, refusal, serve, versionOf } from "./program.mjs";

const TABLE = "scenario_knex";

const withKnex = async (url, max, work) => {
  const knex = makeKnex({ client: "pg", connection: url, pool: { min: 0, max } });
  try {
    return await work(knex);
  } finally {
    await knex.destroy();
  }
};

const value = async (knex, text, values = []) => Object.values((await knex.raw(text, values)).rows[0])[0];
const codeOf = (query) => query.then(() => null, (error) => error.code);

// Knex asks its first connection for the server's version; where that is refused it leaves the connection open.
const afterRefusals = (url, ask) =>
  withKnex(url, 1, async (knex) => {
    const codes = [];
    await value(knex, "SELECT 1"); // it knows the version
    await withKnex(url, 1, async (others) => {
      const holder = await others.transaction();
      await holder.raw("SELECT 1");
      for (let i = 0; i < 2; i++) codes.push((await refusal(() => ask(knex))).code);
      await holder.rollback();
    });
    const after = await inTurn(numbers(5), (i) => value(knex, "SELECT ?::int", [i]));
    return { refused: codes.every((code) => code !== null), after };
  });

serve({
  version: () => ({ driver: versionOf("knex") }),

  connect_by_url: (url) =>
    withKnex(url, 1, async (knex) => {
      const { rows } = await knex.raw(`SELECT current_setting('application_name') AS application_name,
        current_database() AS database, current_user AS user, 42 AS answer`);
      return rows[0];
    }),

  pool: (url) =>
    withKnex(url, 5, async (knex) => ({
      rows: await Promise.all(numbers(40).map((i) => value(knex, "SELECT ?::int * 2", [i]))),
    })),

  crowd: (url) =>
    withKnex(url, 8, async (knex) => {
      const clients = await Promise.all(numbers(8).map(() => knex.client.acquireConnection()));
      const turn = (client, i) =>
        knex.transaction(async (own) => value(own, "SELECT ?::int", [i]), { connection: client });
      const rows = await Promise.all(clients.map((client, c) => inTurn(numbers(5, 100 * c), (i) => turn(client, i))));
      for (const client of clients) await knex.client.releaseConnection(client);
      return { rows };
    }),

  transactions: (url) =>
    withKnex(url, 2, async (knex) => {
      await knex.schema.dropTableIfExists(TABLE);
      await knex.schema.createTable(TABLE, (table) => table.integer("a"));
      const undone = (begin) => begin.catch((error) => (error.message === "undo" ? null : Promise.reject(error)));
      const undo = () => Promise.reject(new Error("undo"));
      await knex.transaction((own) => own(TABLE).insert({ a: 1 }));
      await undone(knex.transaction((own) => own(TABLE).insert({ a: 2 }).then(undo)));
      await knex.transaction(async (own) => {
        await own(TABLE).insert({ a: 3 });
        await undone(own.transaction((inner) => inner(TABLE).insert({ a: 4 }).then(undo)));
      });
      const rows = await knex(TABLE).orderBy("a").pluck("a");
      await knex.schema.dropTable(TABLE);
      return { rows };
    }),

  // Knex calls pg_cancel_backend() with the process id it was told at login, and gives the connection back at once:
  // whoever gets it next waits for a query that runs on.
  cancel: (url) =>
    withKnex(url, 1, async (knex) => {
      const started = Date.now();
      const { type } = await refusal(() => knex.raw("SELECT pg_sleep(3)").timeout(100, { cancel: true }));
      const after = await value(knex, "SELECT 1");
      const isCancelled = type === "KnexTimeoutError" && Date.now() - started < 2500;
      return { code: isCancelled ? "57014" : "the query ran to its end", after };
    }),

  errors: (url) =>
    withKnex(url, 1, async (knex) => {
      await knex.schema.dropTableIfExists(TABLE);
      await knex.schema.createTable(TABLE, (table) => table.integer("a").primary());
      const unique = await codeOf(knex(TABLE).insert([{ a: 1 }, { a: 1 }]));
      const syntax = await codeOf(knex.raw("SELEC 1"));
      await knex.schema.dropTable(TABLE);
      const own = await knex.transaction();
      await codeOf(own.raw("SELECT 1/0"));
      const aborted = await codeOf(own.raw("SELECT 1"));
      await own.rollback();
      return { unique, syntax, aborted, after: await value(knex, "SELECT 1") };
    }),

  refusal_while_full: (url) =>
    withKnex(url, 2, async (knex) => {
      const holder = await knex.transaction();
      await holder.raw("SELECT 1");
      const found = await refusal(() => value(knex, "SELECT 1"));
      await holder.rollback();
      return found;
    }),

  recovery: (url) => afterRefusals(url, (knex) => value(knex, "SELECT 1")),
  refused_begin: (url) => afterRefusals(url, (knex) => knex.transaction((own) => own.raw("SELECT 1"))),
});

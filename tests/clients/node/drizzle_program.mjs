// Drizzle on node-postgres, with its prepared statements, whose names the program gives.
import { asc, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { integer, pgTable } from "drizzle-orm/pg-core";
import pg from "pg";
import { inTurn, numbers, refusal, serve, sleep, versionOf } from "./program.mjs";

const table = pgTable("scenario_drizzle", { a: integer("a").primaryKey() });

const withPool = async (url, max, work) => {
  const pool = new pg.Pool({ connectionString: url, max, connectionTimeoutMillis: 3000 });
  pool.on("error", () => {});
  try {
    return await work(drizzle({ client: pool }), pool);
  } finally {
    await Promise.race([pool.end(), sleep(1000)]); // a connection that was never given back would hold this up for ever
  }
};

const value = async (db, query) => Object.values((await db.execute(query)).rows[0])[0];
const codeIn = (error) => error.cause?.code ?? error.code; // Drizzle wraps the driver's error
const codeOf = (query) => query.then(() => null, codeIn);
const create = (db) =>
  db.execute(sql`DROP TABLE IF EXISTS scenario_drizzle; CREATE TABLE scenario_drizzle (a int PRIMARY KEY)`);
const drop = (db) => db.execute(sql`DROP TABLE scenario_drizzle`);

// Messages of Drizzle's error show the query; what the server said is in its cause.
const told = async (work) => {
  const wrapped = await refusal(work, codeIn);
  const cause = await work().then(() => null, (error) => error.cause);
  return { ...wrapped, message: cause?.message ?? wrapped.message };
};

const afterRefusals = (url, ask) =>
  withPool(url, 1, async (db) => {
    const codes = [];
    await withPool(url, 1, (others) =>
      others.transaction(async (own) => {
        await own.execute(sql`SELECT 1`);
        for (let i = 0; i < 2; i++) codes.push((await refusal(() => ask(db), codeIn)).code);
      }),
    );
    const after = await inTurn(numbers(5), (i) => value(db, sql`SELECT ${i}::int`));
    return { refused: codes.every((code) => code !== null), after };
  });

serve({
  version: () => ({ driver: versionOf("drizzle-orm") }),

  connect_by_url: (url) =>
    withPool(url, 1, async (db) => {
      const { rows } = await db.execute(sql`SELECT current_setting('application_name') AS application_name,
        current_database() AS database, current_user AS user, 42 AS answer`);
      return rows[0];
    }),

  pool: (url) =>
    withPool(url, 5, async (db) => ({
      rows: await Promise.all(numbers(40).map((i) => value(db, sql`SELECT ${i}::int * 2`))),
    })),

  crowd: (url) =>
    withPool(url, 8, async (_, pool) => {
      const clients = await Promise.all(numbers(8).map(() => pool.connect()));
      const turn = (client, i) => drizzle({ client }).transaction((own) => value(own, sql`SELECT ${i}::int`));
      const rows = await Promise.all(clients.map((client, c) => inTurn(numbers(5, 100 * c), (i) => turn(client, i))));
      for (const client of clients) client.release();
      return { rows };
    }),

  prepared_statements: (url) =>
    withPool(url, 1, (one) =>
      withPool(url, 1, async (two) => {
        const source = sql`(VALUES (1)) AS source`;
        const i = sql.placeholder("i");
        const plus = one.select({ v: sql`${i}::int + 1` }).from(source).prepare("same_name");
        const ask = async (query, i) => (await query.execute({ i }))[0].v;
        const first = await inTurn(numbers(8), (i) => ask(plus, i));
        const second = await two.transaction(async (own) => {
          const word = own.select({ v: sql`'x' || ${i}::text` }).from(source).prepare("same_name");
          const found = await inTurn(numbers(8), (i) => ask(word, `${i}`));
          first.push(...(await inTurn(numbers(3, 8), (i) => ask(plus, i))));
          return found;
        });
        return { one: first, other: second };
      }),
    ),

  transactions: (url) =>
    withPool(url, 2, async (db) => {
      await create(db);
      const insert = (own, a) => own.insert(table).values({ a });
      const undone = (begin) => begin.catch((error) => (error.message === "Rollback" ? null : Promise.reject(error)));
      await db.transaction((own) => insert(own, 1));
      await undone(db.transaction(async (own) => { await insert(own, 2); own.rollback(); }));
      await db.transaction(async (own) => {
        await insert(own, 3);
        await undone(own.transaction(async (inner) => { await insert(inner, 4); inner.rollback(); }));
      });
      const rows = await db.select().from(table).orderBy(asc(table.a));
      await drop(db);
      return { rows: rows.map((row) => row.a) };
    }),

  errors: (url) =>
    withPool(url, 1, async (db) => {
      await create(db);
      const unique = await codeOf(db.insert(table).values([{ a: 1 }, { a: 1 }]));
      const syntax = await codeOf(db.execute(sql`SELEC 1`));
      await drop(db);
      let aborted = null;
      await db
        .transaction(async (own) => {
          await codeOf(own.execute(sql`SELECT 1/0`));
          aborted = await codeOf(own.execute(sql`SELECT 1`));
          own.rollback();
        })
        .catch(() => null);
      return { unique, syntax, aborted, after: await value(db, sql`SELECT 1`) };
    }),

  refusal_while_full: (url) =>
    withPool(url, 2, (db) => db.transaction(async (own) => {
      await own.execute(sql`SELECT 1`);
      return told(() => value(db, sql`SELECT 1`));
    })),

  recovery: (url) => afterRefusals(url, (db) => value(db, sql`SELECT 1`)),
  refused_begin: (url) => afterRefusals(url, (db) => db.transaction((own) => value(own, sql`SELECT 1`))),
});

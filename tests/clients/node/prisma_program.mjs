// Prisma with its adapter for node-postgres.
import { PrismaPg } from "@prisma/adapter-pg";
import prisma from "./generated/index.js";
import { inTurn, numbers, refusal, serve, versionOf } from "./program.mjs";

const withClient = async (url, max, work, options = {}) => {
  const adapter = new PrismaPg({ connectionString: url, max }, { onPoolError: () => {} });
  const client = new prisma.PrismaClient({ adapter, ...options });
  try {
    return await work(client);
  } finally {
    await client.$disconnect();
  }
};

const value = async (client, text, ...values) => Object.values((await client.$queryRawUnsafe(text, ...values))[0])[0];

// Prisma has codes of its own; the server's is kept beside them.
const codeIn = (error) =>
  error.meta?.driverAdapterError?.cause?.originalCode ?? error.cause?.originalCode ?? error.meta?.code ?? error.code;
const codeOf = (query) => query.then(() => null, codeIn);
const make = async (client) => {
  await client.$executeRaw`DROP TABLE IF EXISTS scenario_prisma`;
  await client.$executeRaw`CREATE TABLE scenario_prisma (a int PRIMARY KEY)`;
};

const afterRefusals = (url, ask) =>
  withClient(url, 1, async (client) => {
    const codes = [];
    await withClient(url, 1, (others) =>
      others.$transaction(async (own) => {
        await own.$queryRaw`SELECT 1`;
        for (let i = 0; i < 2; i++) codes.push((await refusal(() => ask(client), codeIn)).code);
      }),
    );
    const after = await inTurn(numbers(5), (i) => value(client, "SELECT $1::int", i));
    return { refused: codes.every((code) => code !== null), after };
  });

serve({
  version: () => ({ driver: versionOf("@prisma/client") }),

  connect_by_url: (url) =>
    withClient(url, 1, async (client) => {
      const [row] = await client.$queryRaw`SELECT current_setting('application_name') AS application_name,
        current_database() AS database, current_user::text AS user, ${42}::int AS answer`;
      return row;
    }),

  pool: (url) =>
    withClient(url, 5, async (client) => ({
      rows: await Promise.all(numbers(40).map((i) => value(client, "SELECT $1::int * 2", i))),
    })),

  crowd: (url) =>
    withClient(url, 8, async (client) => {
      const turn = (i) => client.$transaction((own) => value(own, "SELECT $1::int", i), { maxWait: 15000 });
      return { rows: await Promise.all(numbers(8).map((c) => inTurn(numbers(5, 100 * c), turn))) };
    }),

  transactions: (url) =>
    withClient(url, 2, async (client) => {
      await make(client);
      const undone = (begin) => begin.catch((error) => (error.message === "undo" ? null : Promise.reject(error)));
      await client.$transaction([client.row.create({ data: { a: 1 } })]);
      await undone(client.$transaction(async (own) => {
        await own.row.create({ data: { a: 2 } });
        throw new Error("undo");
      }));
      await client.$transaction(async (own) => {
        await own.row.create({ data: { a: 3 } });
        await own.$executeRaw`SAVEPOINT here`;
        await own.row.create({ data: { a: 4 } });
        await own.$executeRaw`ROLLBACK TO SAVEPOINT here`;
      }, { isolationLevel: "Serializable" });
      const rows = await client.row.findMany({ orderBy: { a: "asc" } });
      await client.$executeRaw`DROP TABLE scenario_prisma`;
      return { rows: rows.map((row) => row.a) };
    }),

  errors: (url) =>
    withClient(url, 1, async (client) => {
      await make(client);
      const unique = await codeOf(client.row.createMany({ data: [{ a: 1 }, { a: 1 }] }));
      const syntax = await codeOf(client.$queryRaw`SELEC 1`);
      await client.$executeRaw`DROP TABLE scenario_prisma`;
      let aborted = null;
      await client
        .$transaction(async (own) => {
          await codeOf(own.$queryRaw`SELECT 1/0`);
          aborted = await codeOf(own.$queryRaw`SELECT 1`);
          throw new Error("undo");
        })
        .catch(() => null);
      return { unique, syntax, aborted, after: await value(client, "SELECT 1") };
    }),

  refusal_while_full: (url) =>
    withClient(url, 2, (client) =>
      client.$transaction(async (own) => {
        await own.$queryRaw`SELECT 1`;
        return refusal(() => value(client, "SELECT 1"), codeIn);
      }),
    ),

  recovery: (url) => afterRefusals(url, (client) => value(client, "SELECT 1")),
  refused_begin: (url) => afterRefusals(url, (client) => client.$transaction((own) => value(own, "SELECT 1"))),
});

// `node client.js DRIVER FEATURE`: see the README of tests/integration/clients. DRIVER is a module beside this one.
"use strict";

const fs = require("fs");

const driver = require(`./${process.argv[2]}.js`);
const address = {
  host: process.env.ODP_HOST,
  port: Number(process.env.ODP_PORT),
  user: process.env.ODP_USER,
  password: process.env.ODP_PASSWORD,
  database: process.env.ODP_DATABASE,
};
const sql = process.env.ODP_SQL;

function print(value) {
  fs.writeSync(1, JSON.stringify(value) + "\n");
}

/** Tell the connection's id, and wait until the test has done something about it. */
async function pause(connection) {
  const [[id]] = await connection.query("SELECT CONNECTION_ID()");
  print({ id: String(id) });
  await new Promise((resolve) => process.stdin.once("data", resolve).once("end", resolve));
}

function asJson(value) {
  if (Buffer.isBuffer(value)) return value.toString("hex").toUpperCase();
  return typeof value === "bigint" ? String(value) : value;
}

function asRows(rows) {
  return rows.map((row) => row.map(asJson));
}

function asError(error) {
  // What the operating system says has an `errno` below 0.
  const code = error.errno > 0 ? error.errno : null;
  return { code, sqlstate: error.sqlState || null, message: error.sqlMessage || error.message || error.code };
}

async function sizes(connection) {
  let count = 0;
  let length = 0;
  await connection.each(sql, (row) => {
    count += 1;
    length += row[1].length;
  });
  return [[count, length]];
}

async function failures(connection) {
  const errors = [];
  let rows = [];
  for (const statement of sql.split("\n")) {
    try {
      rows = await connection.query(statement);
      errors.push(null);
    } catch (error) {
      errors.push(asError(error));
    }
  }
  return { errors, rows: asRows(rows) };
}

async function reconnect() {
  const pool = driver.pool(address);
  try {
    const connection = await pool.take();
    await pause(connection);
    let error = null;
    try {
      await connection.query(sql);
    } catch (caught) {
      error = asError(caught);
    }
    connection.giveBack();
    const next = await pool.take();
    const rows = asRows(await next.query(sql));
    next.giveBack();
    return { error, rows };
  } finally {
    await pool.end();
  }
}

async function run(feature) {
  if (feature === "version") return { version: driver.version };
  if (feature === "reconnect_after_kill") return reconnect();
  const options = {};
  if (feature === "tls") options.ssl = driver.checking(fs.readFileSync(process.env.ODP_CA));
  if (feature === "compression") options.compress = true;
  const connection = await driver.connect({ ...address, ...options });
  try {
    if (feature === "tls" || feature === "compression") await pause(connection);
    if (feature === "error") return await failures(connection);
    if (feature === "large_result" || feature === "compression") return { rows: await sizes(connection) };
    if (feature !== "prepare") return { rows: asRows(await connection.query(sql)) };
    return { rows: asRows(await connection.prepare(sql, ["Grüße ☃", 1], [null, 2])) };
  } finally {
    await connection.end();
  }
}

run(process.argv[3])
  .catch((error) => ({ error: asError(error) }))
  .then((value) => {
    print(value);
    process.exit(0);
  });

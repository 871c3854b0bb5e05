// mysql2, by its promises.
"use strict";

const mysql = require("mysql2/promise");

const VALUES = { rowsAsArray: true, dateStrings: true, supportBigNumbers: true, charset: "utf8mb4_general_ci" };

class Connection {
  constructor(inner) {
    this.inner = inner;
    inner.connection.on("error", () => {}); // an idle connection that ends would else end the program
  }

  async query(sql) {
    return (await this.inner.query(sql))[0];
  }

  async prepare(sql, ...executions) {
    const statement = await this.inner.prepare(sql);
    const found = [];
    for (const parameters of executions) found.push(...(await statement.execute(parameters))[0]);
    await statement.close();
    return found;
  }

  each(sql, tell) {
    return new Promise((resolve, reject) => {
      this.inner.connection.query(sql).on("result", tell).on("error", reject).on("end", resolve);
    });
  }

  giveBack() {
    this.inner.release();
  }

  end() {
    return this.inner.end();
  }
}

module.exports = {
  version: require("mysql2/package.json").version,
  checking: (ca) => ({ ca, rejectUnauthorized: true, verifyIdentity: true }),
  connect: async (options) => new Connection(await mysql.createConnection({ ...VALUES, ...options })),
  pool: (options) => {
    const pool = mysql.createPool({ ...VALUES, ...options, connectionLimit: 1 });
    return { take: async () => new Connection(await pool.getConnection()), end: () => pool.end() };
  },
};

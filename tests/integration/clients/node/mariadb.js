// MariaDB's connector for Node.
"use strict";

const mariadb = require("mariadb");

const VALUES = { rowsAsArray: true, dateStrings: true };

class Connection {
  constructor(inner) {
    this.inner = inner;
    inner.on("error", () => {}); // an idle connection that ends would else end the program
  }

  async query(sql) {
    return Array.from(await this.inner.query(sql));
  }

  async prepare(sql, ...executions) {
    const statement = await this.inner.prepare(sql);
    const found = [];
    for (const parameters of executions) found.push(...(await statement.execute(parameters)));
    statement.close();
    return found;
  }

  async each(sql, tell) {
    for await (const row of this.inner.queryStream(sql)) tell(row);
  }

  giveBack() {
    return this.inner.release();
  }

  end() {
    return this.inner.end();
  }
}

module.exports = {
  version: mariadb.version,
  checking: (ca) => ({ ca, rejectUnauthorized: true }),
  connect: async (options) => new Connection(await mariadb.createConnection({ ...VALUES, ...options })),
  pool: (options) => {
    const pool = mariadb.createPool({ ...VALUES, ...options, connectionLimit: 1 });
    return { take: async () => new Connection(await pool.getConnection()), end: () => pool.end() };
  },
};

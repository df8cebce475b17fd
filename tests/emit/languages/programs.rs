//! Programs around the blocks of the pages; `BLOCK` stands for the block. The environment variable
//! `DATABASE` has the database's URL.

use super::Language;

/// Calls the function of a block that creates the user `id`.
pub fn emitting(language: Language, block: &str, id: &str) -> String {
    let program = match language {
        Language::Java => EMIT_JAVA,
        Language::Python if block.contains("sqlalchemy") => EMIT_SQLALCHEMY,
        Language::Python => EMIT_PSYCOPG,
        Language::Go => EMIT_GO,
        Language::JavaScript => EMIT_JAVASCRIPT,
    };
    filled(program, block).replace("USER_ID", id)
}

/// Gives an event with this id to a block twice; each time that it is handled adds a row to `mails`.
pub fn consuming(language: Language, block: &str, id: &str) -> String {
    let program = match language {
        Language::Java => CONSUME_JAVA,
        Language::Python => CONSUME_PYTHON,
        Language::Go => CONSUME_GO,
        Language::JavaScript => CONSUME_JAVASCRIPT,
    };
    filled(program, block).replace("EVENT_ID", id)
}

fn filled(program: &str, block: &str) -> String {
    program.trim_start().replace("BLOCK", block)
}

const EMIT_JAVA: &str = r#"
import java.sql.*;

public class Program {
    BLOCK

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(System.getenv("DATABASE"))) {
            createUser(connection, "USER_ID", "Zoë \"Z\"");
        }
    }
}
"#;

const EMIT_PSYCOPG: &str = r#"
import os
import psycopg
BLOCK

with psycopg.connect(os.environ["DATABASE"]) as connection:
    create_user(connection, "USER_ID", 'Zoë "Z"')
"#;

const EMIT_SQLALCHEMY: &str = r#"
import os
from sqlalchemy import create_engine
BLOCK

url = os.environ["DATABASE"].replace("postgresql:", "postgresql+psycopg:")
create_user(create_engine(url), "USER_ID", 'Zoë "Z"')
"#;

const EMIT_GO: &str = r#"
package main

import (
	"context"
	"os"

	"github.com/jackc/pgx/v5"
)

BLOCK

func main() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE"))
	if err == nil {
		err = createUser(ctx, conn, "USER_ID", `Zoë "Z"`)
	}
	if err != nil {
		panic(err)
	}
}
"#;

const EMIT_JAVASCRIPT: &str = r#"
const { Client } = require("pg");
BLOCK

(async () => {
  const client = new Client(process.env.DATABASE);
  await client.connect();
  await createUser(client, "USER_ID", 'Zoë "Z"');
  await client.end();
})();
"#;

const CONSUME_JAVA: &str = r#"
import static java.nio.charset.StandardCharsets.UTF_8;
import java.sql.*;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.TopicPartition;

public class Program {
    static void handle(Connection connection, ConsumerRecord<String, byte[]> record) throws SQLException {
        connection.createStatement().execute("INSERT INTO mails VALUES ('java')");
    }

    public static void main(String[] arguments) throws Exception {
        MockConsumer<String, byte[]> consumer = new MockConsumer<>("earliest");
        TopicPartition partition = new TopicPartition("user", 0);
        consumer.assign(List.of(partition));
        consumer.updateBeginningOffsets(Map.of(partition, 0L));
        for (long offset = 0; offset < 2; offset++) {
            ConsumerRecord<String, byte[]> repeated = new ConsumerRecord<>("user", 0, offset, "u1", new byte[0]);
            repeated.headers().add("event_id", "EVENT_ID".getBytes(UTF_8));
            consumer.addRecord(repeated);
        }
        try (Connection connection = DriverManager.getConnection(System.getenv("DATABASE"))) {
            BLOCK
        }
    }
}
"#;

const CONSUME_PYTHON: &str = r#"
import os
import psycopg

class Record:
    headers = [("event_id", b"EVENT_ID")]

class Consumer:
    def __iter__(self):
        return iter([Record(), Record()])

    def commit(self):
        pass

def handle(connection, record):
    connection.execute("INSERT INTO mails VALUES ('python')")

consumer = Consumer()
connection = psycopg.connect(os.environ["DATABASE"])
BLOCK
connection.close()
"#;

const CONSUME_GO: &str = r#"
package main

import (
	"context"
	"os"

	"github.com/jackc/pgx/v5"
)

func handle(ctx context.Context, tx pgx.Tx, record string) error {
	_, err := tx.Exec(ctx, "INSERT INTO mails VALUES ('go')")
	return err
}

func deliver(ctx context.Context, pool *pgx.Conn, eventID, record string) {
	BLOCK
	if err != nil {
		panic(err)
	}
}

func main() {
	ctx := context.Background()
	pool, err := pgx.Connect(ctx, os.Getenv("DATABASE"))
	if err != nil {
		panic(err)
	}
	deliver(ctx, pool, "EVENT_ID", "a record")
	deliver(ctx, pool, "EVENT_ID", "a record")
}
"#;

const CONSUME_JAVASCRIPT: &str = r#"
const { Client } = require("pg");

async function handle(client, record) {
  await client.query("INSERT INTO mails VALUES ('js')");
}

async function deliver(client, eventId, record) {
  BLOCK
}

(async () => {
  const client = new Client(process.env.DATABASE);
  await client.connect();
  await deliver(client, "EVENT_ID", {});
  await deliver(client, "EVENT_ID", {});
  await client.end();
})();
"#;

"""The application of Horsies: one URL for everything, and no flag for a pooler."""

import os

from horsies import AppConfig, Horsies, PostgresConfig, TaskError, TaskResult

app = Horsies(AppConfig(broker=PostgresConfig(database_url=os.environ["DATABASE_URL"])))


@app.task("double")
def double(*, i: int) -> TaskResult[int, TaskError]:
    return TaskResult(ok=2 * i)


@app.task("echo")
def echo(*, word: str) -> TaskResult[str, TaskError]:
    return TaskResult(ok=word)

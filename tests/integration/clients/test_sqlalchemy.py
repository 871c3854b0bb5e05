"""SQLAlchemy, with PyMySQL and with mysqlclient."""

from __future__ import annotations

from contextlib import closing
from typing import Any, ClassVar

import pytest

from tests.integration.clients.conftest import Entrance
from tests.integration.clients.dbapi import DbApi
from tests.integration.clients.features import Features
from tests.integration.clients.test_mysqlclient import MySqlClient
from tests.integration.clients.test_pymysql import PyMySql
from tests.support.clients import Address

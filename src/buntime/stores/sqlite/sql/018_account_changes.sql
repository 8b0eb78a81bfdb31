-- Counts the changes of accounts and keys, by any process. A server reads them again only when the number has changed.
CREATE TABLE account_changes (number INTEGER NOT NULL) STRICT;
INSERT INTO account_changes VALUES (0);
CREATE TRIGGER account_added AFTER INSERT ON accounts BEGIN UPDATE account_changes SET number = number + 1; END;
CREATE TRIGGER account_changed AFTER UPDATE ON accounts BEGIN UPDATE account_changes SET number = number + 1; END;
CREATE TRIGGER account_removed AFTER DELETE ON accounts BEGIN UPDATE account_changes SET number = number + 1; END;
CREATE TRIGGER key_added AFTER INSERT ON keys BEGIN UPDATE account_changes SET number = number + 1; END;
CREATE TRIGGER key_changed AFTER UPDATE ON keys BEGIN UPDATE account_changes SET number = number + 1; END;
CREATE TRIGGER key_removed AFTER DELETE ON keys BEGIN UPDATE account_changes SET number = number + 1; END;

-- The roles of users.txt, once, when the database is created.
CREATE ROLE web LOGIN PASSWORD 'web-demo';
CREATE ROLE worker LOGIN PASSWORD 'worker-demo';
CREATE ROLE dba_anna LOGIN PASSWORD 'anna-demo' IN ROLE pg_read_all_data, pg_monitor, pg_signal_backend;
GRANT ALL ON SCHEMA public TO web, worker;

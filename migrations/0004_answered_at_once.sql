-- A challenge that is made and answered in one call lies in the row of the session that it earns, whose id is its own but for the
-- prefix. In every other session's row these are null. It only adds: the release before runs on it, and does not find such a challenge.
alter table sessions add column terms text;
alter table sessions add column proof text;
alter table sessions add column attempts_left bigint;
alter table sessions add column answer_by bigint;

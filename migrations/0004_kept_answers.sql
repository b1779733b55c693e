-- Answers kept under an Idempotency-Key. id is a keyed hash of caller, method, path and key, body_hash one of the body.
-- answer is null while a text is on its way; whole is the answer with its secrets, and goes after ten minutes.
create table kept_answers (
  rp_id text not null,
  id text not null,
  user_id text not null,
  turn text not null,
  body_hash bytea not null,
  answer bytea,
  whole bytea,
  created_at bigint not null,
  primary key (rp_id, id)
);
create index kept_answers_user on kept_answers (rp_id, user_id);
create index kept_answers_age on kept_answers (created_at);
create index kept_answers_whole on kept_answers (created_at) where whole is not null;

-- The fence: the last epoch issued for each processor. No foreign key to processors, and no deletion: an
-- epoch must not fall when a processor's row is deleted and made again.

-- +goose Up

CREATE TABLE processor_epochs (
    processor_id text        NOT NULL,
    epoch        bigint      NOT NULL,
    holder       text        NOT NULL DEFAULT '',
    issued_at    timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT processor_epochs_pkey PRIMARY KEY (processor_id),
    CONSTRAINT processor_epochs_epoch_is_positive CHECK (epoch > 0)
);

COMMENT ON TABLE processor_epochs IS 'The last epoch drawn for each processor: issued, or left out. Epochs never fall; a trigger refuses it.';
COMMENT ON COLUMN processor_epochs.holder IS 'The pod that the epoch was drawn for.';

-- +goose StatementBegin
CREATE FUNCTION dory_refuse_falling_epoch() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT AS -- for writers whose search_path is another
$$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.epoch >= OLD.epoch AND NEW.processor_id = OLD.processor_id THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation',
        CONSTRAINT = 'processor_epochs_never_fall',
        TABLE = 'processor_epochs',
        MESSAGE = CASE TG_OP
            WHEN 'UPDATE' THEN format('the epoch of processor %L must not go from %s to %s (processor %L)',
                                      OLD.processor_id, OLD.epoch, NEW.epoch, NEW.processor_id)
            ELSE 'epochs must not be removed'
        END,
        HINT = 'An old instance that is still alive could act again under a number issued twice. Leave the row; it may stay when its processor is gone.';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER processor_epochs_never_fall BEFORE UPDATE OR DELETE ON processor_epochs FOR EACH ROW
    EXECUTE FUNCTION dory_refuse_falling_epoch();

CREATE TRIGGER processor_epochs_never_truncated BEFORE TRUNCATE ON processor_epochs
    FOR EACH STATEMENT EXECUTE FUNCTION dory_refuse_falling_epoch();

-- needs: 2
-- The default image of a fleet, for each recipe of which it has hosts. A server that does not know this table makes an
-- image of its own.
CREATE TABLE default_images (
  recipe text COLLATE "C" PRIMARY KEY, -- names the sources
  image  text COLLATE "C" NOT NULL     -- names the content of one image that was made of them
);

ALTER TABLE hosts ADD COLUMN recipe text COLLATE "C" NOT NULL DEFAULT ''; -- by which it serves. '': it has not said

DROP TABLE lifecycle_in_force;

DROP TABLE corporate_actions;
DROP TABLE instruments;


/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!40101 SET @OLD_CHARACTER_SET_RESULTS=@@CHARACTER_SET_RESULTS */;
/*!40101 SET @OLD_COLLATION_CONNECTION=@@COLLATION_CONNECTION */;
/*!40101 SET NAMES utf8mb4 */;
/*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE */;
/*!40103 SET TIME_ZONE='+00:00' */;
/*!40014 SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0 */;
/*!40014 SET @OLD_FOREIGN_KEY_CHECKS=@@FOREIGN_KEY_CHECKS, FOREIGN_KEY_CHECKS=0 */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;
/*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;
DROP TABLE IF EXISTS `alembic_version`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `alembic_version` (
  `version_num` varchar(32) NOT NULL,
  PRIMARY KEY (`version_num`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `alembic_version` WRITE;
/*!40000 ALTER TABLE `alembic_version` DISABLE KEYS */;
INSERT INTO `alembic_version` VALUES ('0002');
/*!40000 ALTER TABLE `alembic_version` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `applications`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `applications` (
  `token` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `name` varchar(255) NOT NULL,
  `created_at` bigint(20) NOT NULL,
  `chats_count` bigint(20) NOT NULL DEFAULT 0,
  PRIMARY KEY (`token`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `applications` WRITE;
/*!40000 ALTER TABLE `applications` DISABLE KEYS */;
INSERT INTO `applications` VALUES ('0nQJ2R7RBKae4C4ag6mNBw','Others 0',1795571845745,1);
INSERT INTO `applications` VALUES ('4Q8UxNNEY5tVG60v8CmoMw','Others 2',1795571845753,1);
INSERT INTO `applications` VALUES ('4TzTDIEMJUfdz77ZSZxT0A','Others 1',1795571845750,1);
INSERT INTO `applications` VALUES ('7XiIrnmsMPo_AdTOCwzZYQ','Others 3',1795571845754,1);
INSERT INTO `applications` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q','Ours',1795571845738,3);
INSERT INTO `applications` VALUES ('o3eqEjTadirP3E8WrcCj6A','Theirs',1795571845742,1);
/*!40000 ALTER TABLE `applications` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `changes`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `changes` (
  `shard` int(11) NOT NULL,
  `position` bigint(20) NOT NULL,
  `noted_at` bigint(20) NOT NULL,
  `messages` mediumblob NOT NULL,
  PRIMARY KEY (`shard`,`position`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `changes` WRITE;
/*!40000 ALTER TABLE `changes` DISABLE KEYS */;
INSERT INTO `changes` VALUES (0,1,1795571846381,0x9193B634547A544449454D4A5566647A37375A535A785430410101);
INSERT INTO `changes` VALUES (1,1,1795571846376,0x9293B6306E514A32523752424B61653443346167366D4E4277010193B634513855784E4E45593574564736307638436D6F4D770101);
INSERT INTO `changes` VALUES (2,1,1795571846328,0xDC001593B64D66744E6B4A2D7165754B64504E7864334B33793551010193B64D66744E6B4A2D7165754B64504E7864334B33793551010293B64D66744E6B4A2D7165754B64504E7864334B33793551010393B64D66744E6B4A2D7165754B64504E7864334B33793551010493B64D66744E6B4A2D7165754B64504E7864334B33793551010593B64D66744E6B4A2D7165754B64504E7864334B33793551010693B64D66744E6B4A2D7165754B64504E7864334B33793551010793B64D66744E6B4A2D7165754B64504E7864334B33793551010893B64D66744E6B4A2D7165754B64504E7864334B33793551010993B64D66744E6B4A2D7165754B64504E7864334B33793551010A93B64D66744E6B4A2D7165754B64504E7864334B33793551010B93B64D66744E6B4A2D7165754B64504E7864334B33793551010C93B64D66744E6B4A2D7165754B64504E7864334B33793551010D93B64D66744E6B4A2D7165754B64504E7864334B33793551010E93B64D66744E6B4A2D7165754B64504E7864334B33793551010F93B64D66744E6B4A2D7165754B64504E7864334B33793551011093B64D66744E6B4A2D7165754B64504E7864334B33793551011193B64D66744E6B4A2D7165754B64504E7864334B33793551011293B64D66744E6B4A2D7165754B64504E7864334B33793551011393B64D66744E6B4A2D7165754B64504E7864334B33793551011493B64D66744E6B4A2D7165754B64504E7864334B337935510201);
INSERT INTO `changes` VALUES (2,2,1795571851760,0x9493B64D66744E6B4A2D7165754B64504E7864334B33793551010193B64D66744E6B4A2D7165754B64504E7864334B33793551011593B64D66744E6B4A2D7165754B64504E7864334B33793551011693B64D66744E6B4A2D7165754B64504E7864334B337935510117);
INSERT INTO `changes` VALUES (3,1,1795571846390,0x9293B637586949726E6D734D506F5F4164544F43777A5A5951010193B66F336571456A546164697250334538577263436A36410101);
/*!40000 ALTER TABLE `changes` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `chats`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `chats` (
  `token` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `number` bigint(20) NOT NULL,
  `title` varchar(255) DEFAULT NULL,
  `created_at` bigint(20) NOT NULL,
  `counted` bigint(20) NOT NULL DEFAULT 0,
  `counted_to` bigint(20) NOT NULL DEFAULT 0,
  `last_number` bigint(20) NOT NULL DEFAULT 0,
  `epoch` bigint(20) NOT NULL DEFAULT 1,
  `live_epoch` bigint(20) NOT NULL DEFAULT 1,
  PRIMARY KEY (`token`,`number`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `chats` WRITE;
/*!40000 ALTER TABLE `chats` DISABLE KEYS */;
INSERT INTO `chats` VALUES ('0nQJ2R7RBKae4C4ag6mNBw',1,NULL,1795571845808,0,0,0,1,1);
INSERT INTO `chats` VALUES ('4Q8UxNNEY5tVG60v8CmoMw',1,NULL,1795571845816,0,0,0,1,1);
INSERT INTO `chats` VALUES ('4TzTDIEMJUfdz77ZSZxT0A',1,NULL,1795571845813,0,0,0,1,1);
INSERT INTO `chats` VALUES ('7XiIrnmsMPo_AdTOCwzZYQ',1,NULL,1795571845819,0,0,0,1,1);
INSERT INTO `chats` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,'General',1795571845771,0,0,3,1,1);
INSERT INTO `chats` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',2,NULL,1795571845777,0,0,0,1,1);
INSERT INTO `chats` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',3,'Made while no writer ran',1795571852626,0,0,0,1,1);
INSERT INTO `chats` VALUES ('o3eqEjTadirP3E8WrcCj6A',1,'Theirs',1795571845804,0,0,0,1,1);
/*!40000 ALTER TABLE `chats` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `ended_sessions`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `ended_sessions` (
  `session` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `expires_at` bigint(20) NOT NULL,
  PRIMARY KEY (`session`),
  KEY `by_expiry` (`expires_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `ended_sessions` WRITE;
/*!40000 ALTER TABLE `ended_sessions` DISABLE KEYS */;
/*!40000 ALTER TABLE `ended_sessions` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `idempotency_keys`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `idempotency_keys` (
  `token` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `chat` bigint(20) NOT NULL,
  `sender_id` bigint(20) NOT NULL,
  `key` varchar(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `number` bigint(20) NOT NULL,
  `body_hash` varbinary(32) NOT NULL,
  PRIMARY KEY (`token`,`chat`,`sender_id`,`key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `idempotency_keys` WRITE;
/*!40000 ALTER TABLE `idempotency_keys` DISABLE KEYS */;
INSERT INTO `idempotency_keys` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',2,1,'key-1',1,0xD101A5453C9F3DA2926DC449D2B7BECA80EBA891B7FA279045192F060A4CCDD8);
INSERT INTO `idempotency_keys` VALUES ('o3eqEjTadirP3E8WrcCj6A',1,3,'key-1',1,0x231AF173763DF23296B4B3E429D693B73797ABB656ECED7227543973F675AB28);
/*!40000 ALTER TABLE `idempotency_keys` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `kept`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `kept` (
  `name` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `value` varchar(255) NOT NULL,
  PRIMARY KEY (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `kept` WRITE;
/*!40000 ALTER TABLE `kept` DISABLE KEYS */;
INSERT INTO `kept` VALUES ('session secret','de91b8fe003cd52806f08ed1f7e25f7ae6954d8411f982d5146fb8e02d2008e7');
INSERT INTO `kept` VALUES ('shards','4');
/*!40000 ALTER TABLE `kept` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `members`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `members` (
  `token` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `user_id` bigint(20) NOT NULL,
  `role` enum('owner','admin','member') NOT NULL,
  `app_created_at` bigint(20) NOT NULL,
  `position` bigint(20) NOT NULL AUTO_INCREMENT,
  PRIMARY KEY (`token`,`user_id`),
  KEY `by_user` (`user_id`,`app_created_at`,`position`),
  KEY `by_position` (`position`)
) ENGINE=InnoDB AUTO_INCREMENT=9 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `members` WRITE;
/*!40000 ALTER TABLE `members` DISABLE KEYS */;
INSERT INTO `members` VALUES ('0nQJ2R7RBKae4C4ag6mNBw',2,'owner',1795571845745,3);
INSERT INTO `members` VALUES ('4Q8UxNNEY5tVG60v8CmoMw',2,'owner',1795571845753,5);
INSERT INTO `members` VALUES ('4TzTDIEMJUfdz77ZSZxT0A',2,'owner',1795571845750,4);
INSERT INTO `members` VALUES ('7XiIrnmsMPo_AdTOCwzZYQ',2,'owner',1795571845754,6);
INSERT INTO `members` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,'owner',1795571845738,1);
INSERT INTO `members` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',2,'admin',1795571845738,7);
INSERT INTO `members` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',3,'member',1795571845738,8);
INSERT INTO `members` VALUES ('o3eqEjTadirP3E8WrcCj6A',3,'owner',1795571845742,2);
/*!40000 ALTER TABLE `members` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `messages`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `messages` (
  `token` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `chat` bigint(20) NOT NULL,
  `number` bigint(20) NOT NULL,
  `sender_id` bigint(20) NOT NULL,
  `sender_name` varchar(255) NOT NULL,
  `body` mediumtext NOT NULL,
  `created_at` bigint(20) NOT NULL,
  `edited_at` bigint(20) DEFAULT NULL,
  PRIMARY KEY (`token`,`chat`,`number`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `messages` WRITE;
/*!40000 ALTER TABLE `messages` DISABLE KEYS */;
INSERT INTO `messages` VALUES ('0nQJ2R7RBKae4C4ag6mNBw',1,1,2,'Bob Ünal','stored elsewhere',1795571845873,NULL);
INSERT INTO `messages` VALUES ('4Q8UxNNEY5tVG60v8CmoMw',1,1,2,'Bob Ünal','stored elsewhere',1795571845882,NULL);
INSERT INTO `messages` VALUES ('4TzTDIEMJUfdz77ZSZxT0A',1,1,2,'Bob Ünal','stored elsewhere',1795571845878,NULL);
INSERT INTO `messages` VALUES ('7XiIrnmsMPo_AdTOCwzZYQ',1,1,2,'Bob Ünal','stored elsewhere',1795571845885,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,1,1,'Ann','edited, stored, and queued still',1795571845822,1795571847482);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,2,2,'Bob Ünal','edited and stored',1795571845828,1795571845894);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,4,1,'Ann','stored 3 🎉',1795571845833,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,5,2,'Bob Ünal','stored 4 🎉',1795571845836,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,6,3,'Eve','stored 5 🎉',1795571845840,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,7,1,'Ann','stored 6 🎉',1795571845843,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,8,2,'Bob Ünal','stored 7 🎉',1795571845844,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,9,3,'Eve','stored 8 🎉',1795571845846,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,10,1,'Ann','stored 9 🎉',1795571845848,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,11,2,'Bob Ünal','stored 10 🎉',1795571845850,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,12,3,'Eve','stored 11 🎉',1795571845852,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,13,1,'Ann','stored 12 🎉',1795571845854,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,14,2,'Bob Ünal','stored 13 🎉',1795571845858,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,15,3,'Eve','stored 14 🎉',1795571845861,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,16,1,'Ann','stored 15 🎉',1795571845863,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,17,2,'Bob Ünal','stored 16 🎉',1795571845865,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,18,3,'Eve','stored 17 🎉',1795571845867,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,19,1,'Ann','stored 18 🎉',1795571845868,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,20,2,'Bob Ünal','stored 19 🎉',1795571845870,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,21,2,'Bob Ünal','stored, and queued still 0',1795571847471,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,22,2,'Bob Ünal','stored, and queued still 1',1795571847474,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',1,23,2,'Bob Ünal','stored, and queued still 2',1795571847478,NULL);
INSERT INTO `messages` VALUES ('MftNkJ-qeuKdPNxd3K3y5Q',2,1,1,'Ann','once only',1795571845888,NULL);
INSERT INTO `messages` VALUES ('o3eqEjTadirP3E8WrcCj6A',1,1,3,'Eve','stored with a key',1795571845891,NULL);
/*!40000 ALTER TABLE `messages` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `processes`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `processes` (
  `kind` varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `name` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `seen_at` bigint(20) NOT NULL,
  PRIMARY KEY (`kind`,`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `processes` WRITE;
/*!40000 ALTER TABLE `processes` DISABLE KEYS */;
/*!40000 ALTER TABLE `processes` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `publishers`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `publishers` (
  `shard` int(11) NOT NULL,
  `publisher` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `sequence` bigint(20) NOT NULL,
  `applied_at` bigint(20) NOT NULL,
  PRIMARY KEY (`shard`,`publisher`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `publishers` WRITE;
/*!40000 ALTER TABLE `publishers` DISABLE KEYS */;
INSERT INTO `publishers` VALUES (0,'fd702d5a6d3818c981117cba',1,1795571846);
INSERT INTO `publishers` VALUES (1,'eea906d2312daa1a19283949',2,1795571846);
INSERT INTO `publishers` VALUES (2,'eea906d2312daa1a19283949',14,1795571851);
INSERT INTO `publishers` VALUES (2,'elsewhere',1,1795571851);
INSERT INTO `publishers` VALUES (2,'fd702d5a6d3818c981117cba',13,1795571851);
INSERT INTO `publishers` VALUES (3,'fd702d5a6d3818c981117cba',2,1795571846);
/*!40000 ALTER TABLE `publishers` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `shards`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `shards` (
  `shard` int(11) NOT NULL,
  `position` bigint(20) NOT NULL,
  PRIMARY KEY (`shard`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `shards` WRITE;
/*!40000 ALTER TABLE `shards` DISABLE KEYS */;
INSERT INTO `shards` VALUES (0,1);
INSERT INTO `shards` VALUES (1,1);
INSERT INTO `shards` VALUES (2,2);
INSERT INTO `shards` VALUES (3,1);
/*!40000 ALTER TABLE `shards` ENABLE KEYS */;
UNLOCK TABLES;
DROP TABLE IF EXISTS `users`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `users` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT,
  `ref` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `email` varchar(320) NOT NULL,
  `name` varchar(255) NOT NULL,
  `password_hash` varchar(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `created_at` bigint(20) NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `by_ref` (`ref`),
  UNIQUE KEY `by_email` (`email`)
) ENGINE=InnoDB AUTO_INCREMENT=4 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `users` WRITE;
/*!40000 ALTER TABLE `users` DISABLE KEYS */;
INSERT INTO `users` VALUES (1,'Bi9wVXvkv61KtLda','ann@example.com','Ann','$argon2id$v=19$m=19456,t=2,p=1$177b/YILDoKJ6floWj9Jlg$t/XuzcJvAsUTZ30K2mqhEcGr+a6f0PFrL3RhdqO3Yms',1795571845506);
INSERT INTO `users` VALUES (2,'_J7854GhPyzHpaD1','bob@example.com','Bob Ünal','$argon2id$v=19$m=19456,t=2,p=1$pPzVMahBGp5PxHxK80m+Xw$9YoVB1RlY+8jTR719FhMHDp6V8UrC2DcxFNFRjPDKZs',1795571845591);
INSERT INTO `users` VALUES (3,'s3Oj8n60HoFV7gK9','eve@example.com','Eve','$argon2id$v=19$m=19456,t=2,p=1$TrUIddgSxc5dq7g40xs9uw$SCQAGMat8xqL4wnQ3gvtLVzyX01XFJ0IOOcwy9rvchs',1795571845666);
/*!40000 ALTER TABLE `users` ENABLE KEYS */;
UNLOCK TABLES;
/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;

/*!40101 SET SQL_MODE=@OLD_SQL_MODE */;
/*!40014 SET FOREIGN_KEY_CHECKS=@OLD_FOREIGN_KEY_CHECKS */;
/*!40014 SET UNIQUE_CHECKS=@OLD_UNIQUE_CHECKS */;
/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */;
/*!40101 SET CHARACTER_SET_RESULTS=@OLD_CHARACTER_SET_RESULTS */;
/*!40101 SET COLLATION_CONNECTION=@OLD_COLLATION_CONNECTION */;
/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;


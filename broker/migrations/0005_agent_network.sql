-- What an agent found out about the network of its cluster: a ClusterNetwork as JSON, null until it told.
alter table agent add column network jsonb;

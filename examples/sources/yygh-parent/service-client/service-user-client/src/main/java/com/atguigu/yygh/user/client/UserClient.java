package com.atguigu.yygh.user.client;

import com.atguigu.yygh.service.ServiceClients;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** Import this to call {@code service-user} through its contract. */
@Configuration(proxyBeanMethods = false)
public class UserClient {

    @Bean
    UserApi userApi(ServiceClients clients) {
        return clients.create("service-user", UserApi.class);
    }
}

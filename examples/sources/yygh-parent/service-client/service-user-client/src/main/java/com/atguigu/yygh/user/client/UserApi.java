package com.atguigu.yygh.user.client;

import com.atguigu.yygh.model.user.Patient;
import com.atguigu.yygh.model.user.User;
import java.util.List;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.service.annotation.GetExchange;
import org.springframework.web.service.annotation.HttpExchange;
import org.springframework.web.service.annotation.PostExchange;

/** Users and the patients they book for. */
@HttpExchange("/api/user")
public interface UserApi {

    @GetExchange("/users")
    List<User> users();

    @GetExchange("/users/{id}")
    User user(@PathVariable long id);

    @GetExchange("/users/{id}/patients")
    List<Patient> patientsOf(@PathVariable long id);

    @PostExchange("/users/{id}/patients")
    Patient add(@PathVariable long id, @RequestBody Patient patient);

    @GetExchange("/patients")
    List<Patient> patients();

    @GetExchange("/patients/{id}")
    Patient patient(@PathVariable long id);
}
